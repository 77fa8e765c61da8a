//! What the board must have for a plan to run: images, devices, bind sources, files taken in at a start, kernel features,
//! memory.
//!
//! A board problem concerns single services: they are held until it is gone, and the others start. `coracle check` shows
//! all of them, on the board or, for a file system that is being built, beneath its root.
#![forbid(unsafe_code)]

pub mod doctor;
pub mod features;
mod here;
mod images;
mod inputs;
mod kernel;
mod probe;
pub mod profile;

pub use here::{Files, memory};
pub use images::image_problems;
pub use inputs::{awaited, env_entries, skipped};
pub use profile::Profile;

use crate::base::units::Bytes;
use crate::image::mountable::Mountable;
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::plan::{Device, Kind, Memory, MountKind, Plan, Service};
use crate::sandbox::cgroup::Tree;
use crate::sandbox::usb;
use std::path::{Path, PathBuf};

/// A board, as far as it can be looked at from here.
#[derive(Debug, Clone)]
pub struct Board {
    /// Its files.
    pub files: Files,
    /// Its kernel; `None` when looked at from a build host that has no profile of it.
    pub kernel: Option<Profile>,
    /// What its images must be made for; `None`: not known.
    pub platform: Option<Platform>,
    /// The memory of the smallest board to judge by, in place of the plan's.
    pub memory: Option<Bytes>,
    /// The memory that this very machine's kernel has to give, if the board is this machine.
    pub own_memory: Option<Bytes>,
    /// Whether what images that are file systems ask for is looked at once there is one.
    images_later: bool,
}

/// The memory that there is for all services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The memory.
    pub memory: Bytes,
    /// What of it is for the kernel and the supervisor.
    pub reserve: Bytes,
}

impl Room {
    /// What is left for the services.
    pub fn left(&self) -> Bytes {
        Bytes(self.memory.0.saturating_sub(self.reserve.0))
    }
}

impl core::fmt::Display for Room {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({} less a reserve of {})", self.left(), self.memory, self.reserve)
    }
}

/// Something that the board lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardProblem {
    /// The service that it concerns, by its index in the plan; `None`: the board as a whole.
    pub service: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub hint: String,
}

/// The memory that a plan's services may take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemorySum {
    /// Limits of the services that start at boot, programs of the board and oneshots among them.
    pub limits: Bytes,
    /// What of these are oneshots': it is there for others once they are done.
    pub oneshots: Bytes,
    /// Their log rings.
    pub logs: Bytes,
    /// Services without a limit.
    pub unlimited: usize,
}

impl MemorySum {
    /// Limits and rings together.
    pub fn total(&self) -> Bytes {
        Bytes(self.limits.0.saturating_add(self.logs.0))
    }
}

impl Board {
    /// The board that this process runs on.
    pub fn here() -> Board {
        let kernel = Profile::needed();
        Board { own_memory: kernel.memory, ..Board::running(kernel) }
    }

    /// The same for a supervisor of `plan`'s services, which has looked at the cgroups already. A boot pays for every
    /// look: it is looked at only what those services are judged by, one by one.
    pub fn around(tree: &Tree, plan: &Plan) -> Board {
        Board { images_later: true, ..Board::running(Profile::asked_for(plan, tree)) }
    }

    fn running(kernel: Profile) -> Board {
        let platform = Some(Platform::native());
        Board { kernel: Some(kernel), platform, ..Board::of(Files::here()) }
    }

    fn of(files: Files) -> Board {
        Board { files, kernel: None, platform: None, memory: None, own_memory: None, images_later: false }
    }

    /// A board whose root file system is being built beneath `root`.
    pub fn beneath(root: &Path) -> Board {
        Board::of(Files::beneath(root))
    }

    /// The same board judged by a profile that was taken on it.
    pub fn with_profile(self, mut profile: Profile) -> Board {
        Board {
            files: self.files.with_devices(core::mem::take(&mut profile.devices)),
            platform: Some(profile.platform.clone()),
            own_memory: profile.memory,
            kernel: Some(profile),
            ..self
        }
    }

    /// The memory that a plan has to fit into: the smallest board's less the reserve, and this machine's.
    pub fn room(&self, device: &Device) -> Option<Room> {
        let reserve = device.memory_reserve;
        let smallest = self.memory.or(device.memory).map(|memory| Room { memory, reserve });
        match (smallest, self.own_memory) {
            // What a machine shows is what its kernel has left already.
            (Some(smallest), Some(own)) if own < smallest.left() => Some(Room { memory: own, reserve: Bytes(0) }),
            (Some(smallest), _) => Some(smallest),
            (None, own) => own.map(|memory| Room { memory, reserve }),
        }
    }
}

/// Everything that the board lacks for `plan`, service by service, then what concerns the board as a whole.
pub fn problems(plan: &Plan, board: &Board) -> Vec<BoardProblem> {
    let mut found = Vec::new();
    for index in 0..plan.services.len() {
        found.extend(service_problems(plan, index, board));
    }
    found.extend(memory_problem(plan, board));
    found
}

/// Everything that the board lacks for one service: what it is held for.
pub fn service_problems(plan: &Plan, index: usize, board: &Board) -> Vec<BoardProblem> {
    let Some(service) = plan.services.get(index) else { return Vec::new() };
    let mut found = Vec::new();
    let mut add = |message: String, hint: String| found.push(BoardProblem { service: Some(index), message, hint });
    let archive = image(&plan.device, service, &board.files, &mut add);
    bind_sources(service, &board.files, &mut add);
    inputs::check(&plan.device, service, &board.files, board.kernel.is_some(), &mut add);
    if let Some(kernel) = &board.kernel {
        devices(service, &board.files, &mut add);
        kernel.lacks(&plan.device, service, &mut add);
        match archive.as_deref().and_then(Mountable::at) {
            Some(kind) if board.images_later => kernel.clone().with_images().lacks_for_image(kind, &mut add),
            Some(kind) => kernel.lacks_for_image(kind, &mut add),
            None => {}
        }
    }
    found
}

/// Reports an image that is not there; gives the file or folder on this machine that is one.
fn image(device: &Device, service: &Service, files: &Files, add: &mut impl FnMut(String, String)) -> Option<PathBuf> {
    let image = service.image()?;
    let reference = match Reference::parse(image) {
        Ok(reference) => reference,
        Err(bad) => {
            add(format!("image {image:?} cannot be looked for: {bad}"), String::new());
            return None;
        }
    };
    if let Some(found) = files.image(device, &reference) {
        return files.archive(&found.path, &reference);
    }
    let candidates = reference.candidates(&device.images);
    let places: Vec<String> = candidates.iter().map(|path| files.shown(path)).collect();
    let hint = match places.as_slice() {
        [] => "device.images is empty: name the folders of the images there, or write an absolute path".into(),
        [only] => format!("put the archive there as {only}"),
        [first, ..] => format!("put the archive there, for example as {first}"),
    };
    let looked = if places.is_empty() { String::new() } else { format!(" (looked for {})", places.join(", ")) };
    add(format!("image {:?} is missing{looked}", reference.file), hint);
    None
}

fn bind_sources(service: &Service, files: &Files, add: &mut impl FnMut(String, String)) {
    for mount in &service.mounts {
        let MountKind::Bind(source) = &mount.kind else { continue };
        let path = Path::new(&**source);
        if !files.known(path) || files.exists(path) {
            continue;
        }
        add(
            format!("bind source {} is missing", files.shown(path)),
            format!("create it, or take the mount on {:?} out", mount.target),
        );
    }
}

/// Whether a device that `service` cannot do without is not there.
pub fn lacks_device(service: &Service, files: &Files) -> bool {
    let fault = |path: &str| files.device_fault(Path::new(path), false).is_some();
    service.devices.iter().any(|device| !device.optional && fault(&usb::place(device)))
}

fn devices(service: &Service, files: &Files, add: &mut impl FnMut(String, String)) {
    for device in service.devices.iter().filter(|device| !device.optional) {
        let place = usb::place(device);
        // What is plugged in there nobody knows elsewhere.
        if !place.starts_with('/') && !files.are_here() {
            continue;
        }
        if let Some(fault) = files.device_fault(Path::new(&*place), false) {
            let hint = "load its driver, or say \"optional\": true if the service can do without it";
            add(format!("device {place} {fault}"), hint.into());
        }
    }
    for limit in &service.limits.io {
        if let Some(fault) = files.device_fault(Path::new(&*limit.device), true) {
            let hint = "name the whole block device, as lsblk or /proc/partitions shows it";
            add(format!("io limit: {} {fault}", limit.device), hint.into());
        }
    }
}

/// What the services that start at boot may take.
pub fn memory_sum(plan: &Plan) -> MemorySum {
    let mut sum = MemorySum::default();
    for service in plan.services.iter().filter(|service| service.enabled) {
        sum.limits = Bytes(sum.limits.0.saturating_add(super::prober::memory(service).0));
        match service.limits.memory {
            Memory::Max(max) => {
                sum.limits = Bytes(sum.limits.0.saturating_add(max.0));
                if service.kind == Kind::Oneshot {
                    sum.oneshots = Bytes(sum.oneshots.0.saturating_add(max.0));
                }
            }
            Memory::Unlimited => sum.unlimited += 1,
        }
        let ring = service.log.ring.unwrap_or(plan.device.log_ring);
        sum.logs = Bytes(sum.logs.0.saturating_add(ring.0));
    }
    sum
}

/// The problem that all limits together exceed the memory.
pub fn memory_problem(plan: &Plan, board: &Board) -> Option<BoardProblem> {
    let room = board.room(&plan.device)?;
    let sum = memory_sum(plan);
    if sum.total() <= room.left() {
        return None;
    }
    let MemorySum { limits, logs, .. } = sum;
    let over = Bytes(sum.total().0 - room.left().0);
    Some(BoardProblem {
        service: None,
        message: format!(
            "the services may take {limits} of memory and {logs} of logs, {over} more than the board has for them: {room}"
        ),
        hint: "lower limits.memory of some, disable some, or lower device.memory_reserve".into(),
    })
}

#[cfg(test)]
mod tests;
