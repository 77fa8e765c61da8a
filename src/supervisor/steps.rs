//! What a start of a service is made from, and the list of its steps.
#![forbid(unsafe_code)]

use super::board;
use super::event::Index;
use super::images::Images;
use super::run::Supervisor;
use super::rundir;
use crate::image::config::ImageConfig;
use crate::plan::{self, Device, Network, Plan, Service};
use crate::sandbox::cgroup::{Group, Join};
use crate::sandbox::prepare::{Order, Root, prepare};
use crate::sandbox::root;
use crate::sandbox::spec::{NOTIFY, Net, Stdio};
use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

/// What a start of a service is made from, beside its config.
pub(super) struct Material {
    /// What its image says about the process; nothing for the host's root.
    pub(super) image: ImageConfig,
    root: Option<Root>,
    /// The entries of its environment files.
    env: Vec<String>,
    /// The lock that keeps its image in the store.
    pub(super) pin: Option<OwnedFd>,
}

impl Material {
    /// Looks it up. `gone` says that the image is not in the store.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn find(
        device: &Device,
        service: &Service,
        images: &mut Images,
        gone: &str,
    ) -> Result<Material, String> {
        let env = board::env_entries(service)?;
        if service.root == plan::Root::Host {
            return Ok(Material { image: ImageConfig::empty(), root: None, env, pin: None });
        }
        if let Some(folder) = images.folder(device, service) {
            let root = root::folder(Path::new(&*folder.file))?;
            return Ok(Material { image: ImageConfig::empty(), root: Some(root), env, pin: None });
        }
        let record = images.lookup(device, service)?.ok_or(gone)?;
        let overlayfs = images.has_overlayfs();
        let store = images.store(device)?;
        let pin = store.pin(&record).map_err(|error| error.to_string())?;
        let root = root::open(store, &record, overlayfs)?;
        Ok(Material { image: record.config, root: Some(root), env, pin: Some(pin) })
    }

    /// The order for a start; `net` is the network namespace of earlier instances, `group` where main belongs, `notify` the path of the notify socket
    /// if it has one.
    pub(super) fn order<'a>(
        &'a mut self,
        device: &'a Device,
        service: &'a Service,
        net: Option<&OwnedFd>,
        group: Option<(&Group, Join)>,
        notify: &'a str,
    ) -> Order<'a> {
        let container = self.root.is_some();
        let folder = group.as_ref().filter(|_| container).and_then(|(group, join)| {
            Some((join.into.as_ref()?.try_clone().ok()?, CString::new(group.unified()?).ok()?))
        });
        Order {
            service,
            image: &self.image,
            env: &self.env,
            root: self.root.take(),
            state: &device.state,
            net: match (service.network, net) {
                (Network::Host, _) => Net::Host,
                (Network::None, Some(net)) => Net::Existing(net.as_raw_fd()),
                (Network::None, None) => Net::New,
            },
            stdio: Stdio::Pipes,
            cgroup: folder,
            cgroup_namespace: container,
            join: group.map(|(_, join)| join),
            die_with_parent: false,
            notify: service.notify.map(|_| notify),
        }
    }
}

/// Where main finds its notify socket: inside its container, or on the host in the run directory.
pub(super) fn notify_path(run: &Path, service: &Service) -> String {
    match service.root {
        plan::Root::Image(_) => NOTIFY.to_string_lossy().into_owned(),
        plan::Root::Host => rundir::notify_socket(run, service.name.as_str()).display().to_string(),
    }
}

/// The steps of a start of service `index` on this board, one a line. Like a start it makes volumes that are missing;
/// unlike one it takes the image as it lies in the store, and no cgroup is made.
///
/// # Errors
/// A sentence saying why there can be no start.
pub fn of_plan(plan: &Plan, index: usize) -> Result<String, String> {
    let service = plan.services.get(index).ok_or("it is not known")?;
    let run = Path::new(rundir::DEFAULT);
    list((&plan.device, service), run, &mut Images::new(), None, None)
}

impl Supervisor<'_> {
    /// The steps of a start of service `index`, which has a group.
    pub(super) fn steps(&mut self, index: Index) -> Result<String, String> {
        let at = usize::from(index);
        let service = self.plan.services.get(at).ok_or("it is not known")?;
        let slot = self.slots.get(at);
        let group = slot.and_then(|slot| slot.group.as_ref()).ok_or_else(|| {
            let name = &service.name;
            format!("{name} does not run: `coracle inspect --steps -c FILE {name}` shows what a start would do")
        })?;
        let group = (group, group.join()?);
        let net = slot.and_then(|slot| slot.net.as_ref());
        list((&self.plan.device, service), self.run.path(), &mut self.images, net, Some(group))
    }
}

fn list(
    (device, service): (&Device, &Service),
    run: &Path,
    images: &mut Images,
    net: Option<&OwnedFd>,
    group: Option<(&Group, Join)>,
) -> Result<String, String> {
    let image = service.image().unwrap_or_default();
    let gone = format!("the image {image:?} is not unpacked: `coracle unpack {image}` does that");
    let mut material = Material::find(device, service, images, &gone)?;
    let notify = notify_path(run, service);
    let spec = prepare(material.order(device, service, net, group, &notify))?;
    Ok(spec.to_string())
}
