//! What services ask of a kernel, against what it has.

use super::features::{FEATURES, index};
use super::profile::Profile;
use crate::image::mountable::Mountable;
use crate::plan::{Device, Feature, Memory, Network, Root, Seccomp, Service};
use crate::sandbox::cgroup::Controller;
use crate::sandbox::cgroup::limits::cpu_list;

/// The namespaces that every service gets, by their names in /proc/self/ns.
const NAMESPACES: [&str; 6] = ["mnt", "pid", "net", "ipc", "uts", "cgroup"];

impl Profile {
    /// Reports what `service` asks for and cannot have, unless the device allows it to be missing.
    pub fn lacks(&self, device: &Device, service: &Service, add: &mut impl FnMut(String, String)) {
        for controller in Controller::ALL {
            let feature = controller.feature();
            let Err(reason) = self.controls(controller) else { continue };
            if needed(controller, service) && !device.allow_missing.has(feature) {
                let word = feature.word();
                let hint = format!("enable it in the kernel, or list \"{word}\" in device.allow_missing");
                add(format!("{word} cannot be enforced here: {reason}"), hint);
            }
        }
        if service.root == Root::Host && Controller::ALL.into_iter().all(|one| self.controls(one).is_err()) {
            let message =
                "there is no cgroup, and nothing else tells the processes of a service on the host's root from others";
            add(message.into(), "mount cgroup2 on /sys/fs/cgroup, or boot a kernel with CONFIG_CGROUPS".into());
        }
        for name in NAMESPACES {
            let Some(place) = index(&format!("ns.{name}")).filter(|place| !self.has_at(*place)) else { continue };
            // On the host's root a network of its own is the only namespace that a service can have.
            if service.root == Root::Host && (name != "net" || service.network == Network::Host) {
                continue;
            }
            if name != "ipc" || !device.allow_missing.has(Feature::Ipc) {
                let options = FEATURES.get(place).map_or(String::new(), |feature| feature.options.join(", "));
                add(format!("the kernel has no {name} namespaces"), format!("boot a kernel with {options}"));
            }
        }
        let filtered = service.seccomp != Seccomp::Off && !device.allow_missing.has(Feature::Seccomp);
        if filtered && !self.has("seccomp.filter") {
            let hint = "boot a kernel with CONFIG_SECCOMP_FILTER, or list \"seccomp\" in device.allow_missing";
            add("the kernel has no system call filters".into(), hint.into());
        }
        self.lacks_cores(service, add);
    }

    /// Reports what an image that is a file system asks for.
    pub fn lacks_for_image(&self, kind: Mountable, add: &mut impl FnMut(String, String)) {
        let name = kind.name();
        for (feature, lacking) in [(format!("fs.{name}"), name), ("loop".to_owned(), "loop devices")] {
            let Some(place) = index(&feature).filter(|place| !self.has_at(*place)) else { continue };
            let option = FEATURES.get(place).and_then(|feature| feature.options.first()).copied().unwrap_or_default();
            let message = format!("its image is a {name} file, and the kernel has no {lacking}");
            add(message, format!("boot a kernel with {option}, or load its module, or take the image as an archive"));
        }
    }

    /// Whether a controller is there, and if not, why.
    fn controls(&self, controller: Controller) -> Result<(), &str> {
        let name = if controller == Controller::Io { "io" } else { controller.v1_name() };
        match index(&format!("cgroup.{name}")) {
            Some(place) if !self.has_at(place) => Err(self.detail(place)),
            _ => Ok(()),
        }
    }

    fn lacks_cores(&self, service: &Service, add: &mut impl FnMut(String, String)) {
        let (Some(wanted), Some(cores)) = (&service.limits.cpus, cpu_list(&self.cores)) else { return };
        let mut missing = Vec::new();
        for core in cpu_list(wanted).unwrap_or_default() {
            if !cores.contains(&core) {
                missing.push(core.to_string());
            }
        }
        if !missing.is_empty() {
            let message = format!("limits.cpus is {wanted:?}, but the board has no core {}", missing.join(", "));
            add(message, format!("it has {} cores, counted from 0", cores.len()));
        }
    }
}

/// Whether a service cannot be started safely without the controller.
fn needed(controller: Controller, service: &Service) -> bool {
    let limits = &service.limits;
    match controller {
        Controller::Memory => matches!(limits.memory, Memory::Max(_)),
        Controller::Pids => true,
        Controller::Devices => !service.has_all_devices(),
        Controller::Cpu => limits.cpu.is_some() || limits.cpu_weight.is_some(),
        Controller::Cpuset => limits.cpus.is_some(),
        Controller::Io => !limits.io.is_empty(),
        // Counting cpu time and `pause`: a service runs without.
        Controller::Cpuacct | Controller::Freezer => false,
    }
}
