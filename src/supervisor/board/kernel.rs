//! What the running kernel can enforce.

use crate::plan::{Device, Feature, Memory, Network, Root, Seccomp, Service};
use crate::sandbox::cgroup::limits::cpu_list;
use crate::sandbox::cgroup::{Controller, Tree};
use std::path::Path;

/// What the running kernel can enforce. Each `Err` says why not.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Per controller.
    controllers: Vec<(Controller, Result<(), String>)>,
    /// Namespaces that it lacks, by their names in /proc/self/ns.
    namespaces_missing: Vec<&'static str>,
    /// System call filters.
    pub seccomp: bool,
    /// Its cores.
    cores: Option<Vec<u16>>,
    /// Whether overlayfs is there or can be loaded; without it images take more space and the first start more time.
    pub overlayfs: bool,
}

/// A namespace that every service gets, its name in /proc/self/ns, the kernel option.
const NAMESPACES: [(&str, &str); 6] = [
    ("mnt", "CONFIG_NAMESPACES"),
    ("pid", "CONFIG_PID_NS"),
    ("net", "CONFIG_NET_NS"),
    ("ipc", "CONFIG_IPC_NS"),
    ("uts", "CONFIG_UTS_NS"),
    ("cgroup", "CONFIG_CGROUPS"),
];

impl Kernel {
    /// Looks at the running kernel; changes nothing.
    pub fn running() -> Kernel {
        let controllers = match Tree::discover("coracle") {
            Ok(tree) => Controller::ALL.map(|controller| (controller, tree.has(controller))).to_vec(),
            Err(error) => Controller::ALL.map(|controller| (controller, Err(error.to_string()))).to_vec(),
        };
        let namespace = |name: &str| Path::new("/proc/self/ns").join(name).exists();
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Kernel {
            controllers,
            namespaces_missing: NAMESPACES.iter().map(|(name, _)| *name).filter(|name| !namespace(name)).collect(),
            seccomp: text("/proc/self/status").lines().any(|line| line.starts_with("Seccomp:")),
            cores: cpu_list(text("/sys/devices/system/cpu/present").trim()),
            overlayfs: overlayfs(&text("/proc/filesystems"), &text("/proc/sys/kernel/osrelease")),
        }
    }

    /// Reports what `service` asks for and cannot have, unless the device allows it to be missing.
    pub fn lacks(&self, device: &Device, service: &Service, add: &mut impl FnMut(String, String)) {
        for (controller, answer) in &self.controllers {
            let feature = controller.feature();
            let Err(reason) = answer else { continue };
            if needed(*controller, service) && !device.allow_missing.has(feature) {
                let word = feature.word();
                let hint = format!("enable it in the kernel, or list \"{word}\" in device.allow_missing");
                add(format!("{word} cannot be enforced here: {reason}"), hint);
            }
        }
        if service.root == Root::Host && self.controllers.iter().all(|(_, answer)| answer.is_err()) {
            let message =
                "there is no cgroup, and nothing else tells the processes of a service on the host's root from others";
            add(message.into(), "mount cgroup2 on /sys/fs/cgroup, or boot a kernel with CONFIG_CGROUPS".into());
        }
        for (name, option) in NAMESPACES.iter().filter(|(name, _)| self.namespaces_missing.contains(name)) {
            // On the host's root a network of its own is the only namespace that a service can have.
            if service.root == Root::Host && (*name != "net" || service.network == Network::Host) {
                continue;
            }
            if *name != "ipc" || !device.allow_missing.has(Feature::Ipc) {
                add(format!("the kernel has no {name} namespaces"), format!("boot a kernel with {option}"));
            }
        }
        let filtered = service.seccomp != Seccomp::Off && !device.allow_missing.has(Feature::Seccomp);
        if filtered && !self.seccomp {
            let hint = "boot a kernel with CONFIG_SECCOMP_FILTER, or list \"seccomp\" in device.allow_missing";
            add("the kernel has no system call filters".into(), hint.into());
        }
        self.lacks_cores(service, add);
    }

    fn lacks_cores(&self, service: &Service, add: &mut impl FnMut(String, String)) {
        let (Some(wanted), Some(cores)) = (&service.limits.cpus, &self.cores) else { return };
        let missing: Vec<String> = cpu_list(wanted)
            .unwrap_or_default()
            .into_iter()
            .filter(|core| !cores.contains(core))
            .map(|core| core.to_string())
            .collect();
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

/// Whether the kernel knows overlayfs, or has it as a module that a mount loads.
fn overlayfs(filesystems: &str, release: &str) -> bool {
    let known = filesystems.lines().any(|line| line.split_whitespace().last() == Some("overlay"));
    let modules = format!("/lib/modules/{}/modules.dep", release.trim());
    let module = || std::fs::read_to_string(modules).is_ok_and(|list| list.contains("/overlay.ko"));
    known || module()
}
