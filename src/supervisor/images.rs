//! Having a service's image in the store: found there, or unpacked by a confined worker, one at a time.
#![forbid(unsafe_code)]

use super::board::Files;
use super::event::Index;
use crate::image::platform::Platform;
use crate::image::record::ImageRecord;
use crate::image::reference::Reference;
use crate::image::store::{Store, is_rootfs};
use crate::image::worker::{self, Job, Started, Step, Worker};
use crate::plan::{Device, Service};
use crate::sandbox::prepare::has_overlayfs;
use crate::sys::heap::HEAP;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// The images' side of the loop.
#[derive(Debug)]
pub struct Images {
    store: Option<Store>,
    worker: Option<Worker>,
    /// Who waits for the worker.
    waiting: VecDeque<Index>,
    /// Whether the kernel has overlayfs, once that was asked.
    overlayfs: Option<bool>,
}

/// Where an image stands.
#[derive(Debug)]
pub enum Standing {
    /// In the store.
    Ready,
    /// Its worker was started just now.
    Begun(String),
    /// Behind another one.
    Queued,
}

impl Images {
    /// Nothing is opened before the first service needs it, for the state folder may lie on a disk that comes late.
    pub fn new() -> Images {
        Images { store: None, worker: None, waiting: VecDeque::new(), overlayfs: None }
    }

    /// The store in the device's state folder.
    ///
    /// # Errors
    /// A sentence.
    pub fn store(&mut self, device: &Device) -> Result<&Store, String> {
        if self.store.is_none() {
            self.store = Some(HEAP.lasting(|| Store::of(device)).map_err(|error| error.to_string())?);
        }
        self.store.as_ref().ok_or_else(|| "there is no store".to_owned())
    }

    /// Whether the kernel has overlayfs.
    pub fn has_overlayfs(&mut self) -> bool {
        *self.overlayfs.get_or_insert_with(has_overlayfs)
    }

    /// The image of a service that is a folder with a root file system, used in place: neither unpacked nor recorded.
    pub fn folder(&self, device: &Device, service: &Service) -> Option<Reference> {
        locate(device, service).ok().filter(|image| is_rootfs(Path::new(&*image.file)))
    }

    /// The record of a service's image, if it is in the store.
    ///
    /// # Errors
    /// A sentence.
    pub fn lookup(&mut self, device: &Device, service: &Service) -> Result<Option<ImageRecord>, String> {
        let reference = locate(device, service)?;
        self.store(device)?.lookup(&reference).map_err(|error| error.to_string())
    }

    /// Sees to it that the image of service `index` comes into the store. Who is not ready is asked for again by
    /// [`Images::take_waiting`].
    ///
    /// # Errors
    /// A sentence saying why the image cannot be used.
    pub fn prepare(&mut self, device: &Device, service: &Service, index: Index) -> Result<Standing, String> {
        let image = locate(device, service)?;
        if is_rootfs(Path::new(&*image.file)) {
            return Ok(Standing::Ready);
        }
        if self.worker.is_some() {
            if self.lookup(device, service)?.is_some() {
                return Ok(Standing::Ready);
            }
            self.waiting.push_back(index);
            return Ok(Standing::Queued);
        }
        let shown = image.to_string();
        let job = Job { image, platform: Platform::native(), caps: device.image_caps };
        match worker::start(self.store(device)?, job).map_err(|error| error.to_string())? {
            Started::Ready(_) => Ok(Standing::Ready),
            Started::Working(worker) => {
                self.worker = Some(worker);
                self.waiting.push_front(index);
                Ok(Standing::Begun(shown))
            }
        }
    }

    /// Readable when the worker has something to tell.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.worker.as_ref().map(Worker::progress_fd)
    }

    /// The worker's process.
    pub fn pid(&self) -> Option<i32> {
        self.worker.as_ref().map(Worker::pid)
    }

    /// Takes in what the worker tells. When it has ended (its process has, or it closed its pipe): the service that it
    /// worked for, and how that went.
    pub fn attend(&mut self, process_ended: bool) -> Option<(Index, Result<(), String>)> {
        let ended = self.worker.as_mut()?.poll() == Step::Ended;
        if !ended && !process_ended {
            return None;
        }
        let (worker, store) = (self.worker.take()?, self.store.as_ref()?);
        let outcome = worker.finish(store).map(drop).map_err(|error| error.to_string());
        Some((self.waiting.pop_front()?, outcome))
    }

    /// Those that waited behind a worker that has ended.
    pub fn take_waiting(&mut self) -> VecDeque<Index> {
        std::mem::take(&mut self.waiting)
    }
}

impl Default for Images {
    fn default() -> Self {
        Images::new()
    }
}

fn locate(device: &Device, service: &Service) -> Result<Reference, String> {
    let image = service.image().ok_or("its root is the host's, not an image's")?;
    let reference = Reference::parse(image).map_err(|bad| format!("{image:?}: {bad}"))?;
    let found = Files::here().image(device, &reference);
    let found = found.ok_or_else(|| format!("the image {image:?} is in none of the image folders"))?;
    Ok(reference.located_at(&found.path))
}
