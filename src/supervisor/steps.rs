//! What a start of a service is made from, and the list of its steps.
#![forbid(unsafe_code)]

use super::event::Index;
use super::images::Images;
use super::run::Supervisor;
use crate::image::record::{ImageRecord, Root as ImageRoot};
use crate::image::store::Store;
use crate::plan::{Device, Network, Plan, Service};
use crate::sandbox::cgroup::Join;
use crate::sandbox::prepare::{Order, Root, has_overlayfs, prepare};
use crate::sandbox::spec::{Net, Stdio};
use nix::libc;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The order for a start; `net` is the network namespace of earlier instances.
pub(super) fn order<'a>(
    device: &'a Device,
    service: &'a Service,
    record: &'a ImageRecord,
    root: Root,
    net: Option<&OwnedFd>,
    join: Option<Join>,
) -> Order<'a> {
    Order {
        service,
        image: &record.config,
        root,
        state: &device.state,
        net: match (service.network, net) {
            (Network::Host, _) => Net::Host,
            (Network::None, Some(net)) => Net::Existing(net.as_raw_fd()),
            (Network::None, None) => Net::New,
        },
        stdio: Stdio::Pipes,
        cgroup: join.as_ref().and_then(|join| join.into.as_ref()?.try_clone().ok()),
        cgroup_namespace: true,
        join,
        die_with_parent: false,
    }
}

/// The folders that a service's root is made of.
///
/// # Errors
/// A sentence.
pub(super) fn root(store: &Store, record: &ImageRecord, overlayfs: bool) -> Result<Root, String> {
    if let ImageRoot::Layers(_) = record.root
        && !overlayfs
    {
        let path = store.flatten(record).map_err(|error| error.to_string())?;
        return folder(&path).map(Root::Flat);
    }
    let mut layers = store.rootfs_layers(record).map_err(|error| error.to_string())?;
    match record.root {
        ImageRoot::Layers(_) => Ok(Root::Layers(layers)),
        ImageRoot::Folder(_) => layers.pop().map(Root::Folder).ok_or_else(|| "its image has no folder".to_owned()),
    }
}

fn folder(path: &Path) -> Result<OwnedFd, String> {
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY);
    options.open(path).map(OwnedFd::from).map_err(|error| format!("cannot open {}: {error}", path.display()))
}

/// The steps of a start of service `index` on this board, one a line. Like a start it makes volumes that are missing;
/// unlike one it takes the image as it lies in the store, and no cgroup is made.
///
/// # Errors
/// A sentence saying why there can be no start.
pub fn of_plan(plan: &Plan, index: usize) -> Result<String, String> {
    let service = plan.services.get(index).ok_or("it is not known")?;
    list(&plan.device, service, &mut Images::new(), has_overlayfs(), None, None)
}

impl Supervisor {
    /// The steps of a start of service `index`, which has a group.
    pub(super) fn steps(&mut self, index: Index) -> Result<String, String> {
        let at = usize::from(index);
        let service = self.plan.services.get(at).ok_or("it is not known")?;
        let slot = self.slots.get(at);
        let group = slot.and_then(|slot| slot.group.as_ref()).ok_or_else(|| {
            let name = &service.name;
            format!("{name} does not run: `coracle inspect --steps -c FILE {name}` shows what a start would do")
        })?;
        let join = group.join().map_err(|error| error.to_string())?;
        let net = slot.and_then(|slot| slot.net.as_ref());
        list(&self.plan.device, service, &mut self.images, self.overlayfs, net, Some(join))
    }
}

fn list(
    device: &Device,
    service: &Service,
    images: &mut Images,
    overlayfs: bool,
    net: Option<&OwnedFd>,
    join: Option<Join>,
) -> Result<String, String> {
    let record = images.lookup(device, service)?.ok_or_else(|| {
        let image = service.image().unwrap_or_default();
        format!("the image {image:?} is not unpacked: `coracle unpack {image}` does that")
    })?;
    let root = root(images.store(device)?, &record, overlayfs)?;
    let spec = prepare(order(device, service, &record, root, net, join)).map_err(|error| error.to_string())?;
    Ok(spec.to_string())
}
