//! The place for groups: finding it, making groups in it, recognising and removing what is left in it.

use super::discover::{Hierarchy, hierarchies, placed, v1_has_all};
use super::group::{Dir, Group, remove_tree};
use super::limits::{IoDevice, Setting};
use super::{Controller, Controllers, DeviceRule, Error, Result, file, limits, v1, v2};
use crate::plan::{Feature, FeatureSet, Limits, Memory};
use crate::sys::Errno;
use crate::sys::heap::HEAP;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::rc::Rc;

/// The environment variable that names, on v2, the group to work beneath instead of this process's own: an absolute path as
/// `/proc/PID/cgroup` writes it. It is made if it is not there. For an init that needs this process's group for itself.
pub const VARIABLE: &str = "CORACLE_CGROUP";

/// Groups whose folders are kept in mind: two of each of 128 services. Beyond, it begins anew.
const LATELY: usize = 256;

/// How a group is made, beside its limits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What may be missing without an error.
    pub allow_missing: FeatureSet,
    /// Whether cpu time is counted also where that costs a folder of its own (v1).
    pub measure: bool,
    /// Whether every device may be used: the list is not looked at.
    pub all_devices: bool,
}

/// What a first process knows of the cgroups that it has mounted itself.
#[derive(Debug, Clone, Default)]
pub struct Known<'a> {
    /// What `/proc/self/cgroup` says.
    pub own: &'a str,
    /// What `/proc/self/mountinfo` says of them.
    pub mounts: &'a str,
    /// What `cgroup.controllers` of the v2 group that it is in says; empty if that is not known.
    pub controllers: String,
    /// Whether it has handed all of them down.
    pub handed_down: bool,
}

/// The cgroup hierarchies and the place in each where coracle keeps its groups.
#[derive(Debug, Clone)]
pub struct Tree {
    hierarchies: Vec<Hierarchy>,
    /// Folder with a slash behind it, or beginning of the names of single groups.
    prefix: String,
    /// The text of `/proc/swaps` if it is known; else it is read when it matters.
    swaps: Option<String>,
    page: u64,
    /// Where groups are made in v2, once that is known.
    unified: Option<v2::Base>,
    prepared: Vec<String>,
    /// The folders of the groups that there were lately.
    lately: Vec<Rc<Vec<Dir>>>,
}

impl Tree {
    /// The tree whose groups are in `folder/`, made on first use, beneath this process's cgroup.
    pub fn discover(folder: &str) -> Result<Tree> {
        Tree::with_prefix(format!("{folder}/"))
    }

    /// The same from what is known already.
    pub fn known(known: &Known<'_>, folder: &str) -> Tree {
        Tree::from_known(known, None, format!("{folder}/"))
    }

    /// The tree for one short-lived group: its folder is called `PREFIX-NAME`, directly beneath this process's cgroup.
    /// Making and removing it costs half as much as with a common folder.
    pub fn discover_flat(prefix: &str) -> Result<Tree> {
        Tree::with_prefix(format!("{prefix}-"))
    }

    /// The tree of [`Tree::discover_flat`], from the look at the machine that made this one.
    pub fn flat(&self, prefix: &str) -> Tree {
        Tree { prefix: format!("{prefix}-"), unified: None, prepared: Vec::new(), ..self.clone() }
    }

    fn with_prefix(prefix: String) -> Result<Tree> {
        let text = |path: &str| {
            let (folder, name) = path.rsplit_once('/').unwrap_or_default();
            file::read(folder, name).map_err(|errno| Error::failed("read", path, errno))
        };
        let (mut own, mounts) = (text("/proc/self/cgroup")?, text("/proc/self/mountinfo")?);
        let Ok(named) = std::env::var(VARIABLE) else { return Ok(Tree::from_text(&own, &mounts, None, prefix)) };
        own = placed(&own, &named);
        let tree = Tree::from_text(&own, &mounts, None, prefix);
        if let Some(unified) = tree.hierarchies.iter().find(|one| one.version == 2) {
            file::make(&unified.own)?;
        }
        Ok(tree)
    }

    /// The tree that these texts of `/proc` describe.
    pub(super) fn from_text(own: &str, mounts: &str, swaps: Option<&str>, prefix: String) -> Tree {
        Tree::from_known(&Known { own, mounts, ..Known::default() }, swaps, prefix)
    }

    fn from_known(known: &Known<'_>, swaps: Option<&str>, prefix: String) -> Tree {
        let mut hierarchies = hierarchies(known.own, known.mounts);
        let mut taken = Controllers::default();
        for one in hierarchies.iter().filter(|one| one.version == 1) {
            taken = taken.and(one.controllers);
        }
        for unified in hierarchies.iter_mut().filter(|one| one.version == 2) {
            unified.own = v2::without_supervisor(&unified.own).to_string();
            unified.controllers = match known.controllers.is_empty() {
                true => v2::controllers(&unified.own),
                false => v2::listed(&known.controllers),
            };
            // Where this group was given next to nothing, one around it may do: `v2::Base::find` looks for it.
            if !v2::ESSENTIAL.without(unified.controllers).is_empty() {
                unified.controllers = v2::controllers(&unified.mount);
            }
            unified.controllers = unified.controllers.without(taken);
            unified.handed_down = if known.handed_down { unified.controllers } else { Controllers::default() };
        }
        hierarchies.retain(|one| !one.controllers.is_empty());
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        Tree {
            hierarchies,
            prefix,
            swaps: swaps.map(str::to_owned),
            page: u64::try_from(page).unwrap_or(4096),
            unified: None,
            prepared: Vec::new(),
            lately: Vec::new(),
        }
    }

    /// Whether the machine has any swap space.
    fn has_swap(&self) -> bool {
        let lines = |text: &str| text.lines().count();
        // Without CONFIG_SWAP there is no such file.
        let read = || std::fs::read_to_string("/proc/swaps").map_or(0, |text| lines(&text));
        self.swaps.as_deref().map_or_else(read, lines) > 1
    }

    /// Whether `controller` can be had, and if not, why. The answer of a look at what is mounted; making a group may
    /// still find more.
    pub fn has(&self, controller: Controller) -> core::result::Result<(), String> {
        self.hierarchy(controller).map(|_| ())
    }

    /// Where a controller is: the version of its hierarchy, and this process's group there.
    pub fn place(&self, controller: Controller) -> core::result::Result<(u8, &str), String> {
        self.hierarchy(controller).map(|(_, found)| (found.version, found.own.as_str()))
    }

    /// The hierarchy that has a controller, with its place among them.
    fn hierarchy(&self, controller: Controller) -> core::result::Result<(usize, &Hierarchy), String> {
        let Some(found) = self.hierarchies.iter().enumerate().find(|(_, one)| one.controllers.has(controller)) else {
            let name = controller.v1_name();
            let unified = self.hierarchies.iter().find(|one| one.version == 2);
            return Err(match unified {
                Some(unified) => format!("no v1 hierarchy has the {name} controller, nor does {}", unified.mount),
                None => format!("no mounted cgroup hierarchy has the {name} controller"),
            });
        };
        match found.1.read_only {
            true => Err(format!("{} is mounted read-only", found.1.mount)),
            false => Ok(found),
        }
    }

    /// Makes the group called `name` with all limits written and read back, before any process is in it.
    ///
    /// A group of that name without processes is made anew, so that its counters begin at zero; one with processes (of
    /// a service that is still running) keeps them and gets the limits.
    ///
    /// # Errors
    /// The first limit that cannot be had and is not in `allow_missing`. Then nothing that was made is left.
    pub fn create(&mut self, name: &str, limits: &Limits, devices: &[DeviceRule], options: &Options) -> Result<Group> {
        let io = block_devices(limits)?;
        let mut group = Group::default();
        let made = self.make(name, (limits, &io), devices, options, &mut group);
        if let Err(error) = made {
            // A group that was in use keeps its processes: removal then fails, and the first error is what matters.
            let _ = group.remove();
            return Err(error);
        }
        group.dirs = self.kept(&group.dirs);
        Ok(group)
    }

    /// The folders of a group as they are kept: a service that stops and starts has the same again.
    fn kept(&mut self, dirs: &Vec<Dir>) -> Rc<Vec<Dir>> {
        if let Some(known) = self.lately.iter().find(|known| ***known == *dirs) {
            return known.clone();
        }
        HEAP.lasting(|| {
            if self.lately.len() >= LATELY {
                self.lately.clear();
            }
            let dirs = Rc::new(dirs.clone());
            self.lately.push(dirs.clone());
            dirs
        })
    }

    fn make(
        &mut self,
        name: &str,
        limits: (&Limits, &[IoDevice]),
        devices: &[DeviceRule],
        options: &Options,
        group: &mut Group,
    ) -> Result<()> {
        let wanted = wanted(limits.0, options, || self.has_swap());
        let reused = self.make_dirs(name, &wanted, options, group)?;
        self.write_limits(group, limits, &reused, options)?;
        self.write_devices(group, devices, &reused, options)
    }

    /// Makes one folder in each hierarchy that carries a controller of `wanted`; tells which were there and in use.
    fn make_dirs(
        &mut self,
        name: &str,
        wanted: &[(Controller, bool)],
        options: &Options,
        group: &mut Group,
    ) -> Result<Vec<String>> {
        let mut places: Vec<(usize, Controllers)> = Vec::new();
        for (controller, required) in wanted {
            match self.hierarchy(*controller) {
                Ok((at, _)) => match places.iter_mut().find(|(place, _)| *place == at) {
                    Some((_, controllers)) => controllers.add(*controller),
                    None => places.push((at, Controllers::of(&[*controller]))),
                },
                Err(reason) if *required => {
                    group.missing = allowed(group.missing, options, Error::missing(controller.feature(), &reason))?;
                }
                Err(_) => {}
            }
        }
        let mut reused = Vec::new();
        for (at, mut controllers) in places {
            let Some(place) = self.hierarchies.get(at) else { continue };
            let base = match place.version {
                2 => {
                    let base = match self.unified.take() {
                        Some(base) => base,
                        None => HEAP.lasting(|| v2::Base::find(place, &self.prefix, controllers))?,
                    };
                    let base = self.unified.insert(base);
                    for (controller, error) in base.enable(controllers)? {
                        controllers = controllers.without(Controllers::of(&[controller]));
                        group.missing = allowed(group.missing, options, error)?;
                    }
                    &base.path
                }
                _ => {
                    if let Some(folder) = self.prefix.strip_suffix('/') {
                        let path = format!("{}/{folder}", place.own);
                        if !self.prepared.contains(&path) {
                            v1::prepare_folder(&path, place.controllers)?;
                            HEAP.lasting(|| self.prepared.push(path.clone()));
                        }
                    }
                    &place.own
                }
            };
            let path = format!("{base}/{}{name}", self.prefix);
            if !file::make(&path)? {
                match file::remove(&path) {
                    Ok(()) => {
                        file::make(&path)?;
                    }
                    Err(_) => reused.push(path.clone()),
                }
            }
            if place.version == 1 && controllers.has(Controller::Cpuset) {
                v1::inherit_cpuset(&path)?;
            }
            // Nobody else has it yet.
            if let Some(dirs) = Rc::get_mut(&mut group.dirs) {
                dirs.push(Dir { version: place.version, controllers, path });
            }
        }
        Ok(reused)
    }

    fn write_limits(
        &self,
        group: &mut Group,
        (limits, io): (&Limits, &[IoDevice]),
        reused: &[String],
        options: &Options,
    ) -> Result<()> {
        let mut missing = group.missing;
        for dir in &*group.dirs {
            let reset = reused.contains(&dir.path);
            let settings = match dir.version {
                2 => limits::v2(limits, io, reset),
                _ => limits::v1(limits, io, reset),
            };
            let folder = file::Folder::open(&dir.path).map_err(|errno| Error::failed("open", &dir.path, errno))?;
            for setting in settings.iter().filter(|setting| dir.controllers.has(setting.controller)) {
                let written = match dir.version {
                    1 if setting.file == "memory.limit_in_bytes" => {
                        v1::write_memory(&folder, setting, &settings, self.page)
                    }
                    _ => write(&folder, setting, self.page),
                };
                if let Err(error) = written {
                    let no_swap = error.feature() == Some(Feature::Swap) && limits.swap.0 == 0 && !self.has_swap();
                    if !no_swap {
                        missing = allowed(missing, options, error)?;
                    }
                }
            }
        }
        group.missing = missing;
        Ok(())
    }

    fn write_devices(
        &self,
        group: &mut Group,
        rules: &[DeviceRule],
        reused: &[String],
        options: &Options,
    ) -> Result<()> {
        let Some(dir) = group.dir(Controller::Devices).filter(|_| !options.all_devices) else { return Ok(()) };
        let written = match dir.version {
            // A group in use has its program since it was made; a second one would only narrow it.
            2 if reused.contains(&dir.path) => Ok(()),
            2 => v2::attach_devices(&dir.path, rules),
            _ => v1::write_devices(&dir.path, rules),
        };
        if let Err(error) = written {
            group.missing = allowed(group.missing, options, error)?;
        }
        Ok(())
    }

    /// The group called `name`, if there is one: made by this process or by one that has ended since.
    pub fn group(&self, name: &str) -> Option<Group> {
        let mut dirs = Vec::new();
        for place in &self.hierarchies {
            let path = format!("{}/{}{name}", self.base_of(place), self.prefix);
            if std::fs::metadata(&path).is_ok_and(|found| found.is_dir()) {
                dirs.push(Dir { version: place.version, controllers: place.controllers, path });
            }
        }
        (!dirs.is_empty()).then(|| Group { dirs: dirs.into(), missing: FeatureSet::default() })
    }

    fn base_of<'a>(&'a self, place: &'a Hierarchy) -> &'a str {
        match &self.unified {
            Some(base) if place.version == 2 => &base.path,
            _ => &place.own,
        }
    }

    /// The names of all groups in the tree, each once: right after the start these are what a supervisor that died left.
    pub fn leftovers(&self) -> Vec<String> {
        let mut names = Vec::new();
        // Where groups have a folder of their own, their names begin in it.
        let (folder, prefix) = self.prefix.rsplit_once('/').unwrap_or(("", &self.prefix));
        for place in &self.hierarchies {
            for name in file::children(&format!("{}/{folder}", self.base_of(place))) {
                if let Some(name) = name.strip_prefix(prefix).filter(|name| *name != v2::SUPERVISOR) {
                    names.push(name.to_owned());
                }
            }
        }
        crate::base::sort::sort(&mut names);
        names.dedup();
        names
    }

    /// Removes what those have left who were killed before they could: groups without processes, whose name ends in
    /// the number of a process that is no more. Looks into one folder, and further only if it finds something there.
    pub fn sweep(&self) {
        let Ok((_, place)) = self.hierarchy(Controller::Pids) else { return };
        for name in file::children(self.base_of(place)) {
            let maker = name.strip_prefix(&self.prefix).and_then(|name| name.rsplit_once('-')?.1.parse::<u32>().ok());
            if maker.is_some_and(|maker| !std::path::Path::new(&format!("/proc/{maker}")).exists()) {
                // The kernel refuses to remove what still has processes in it: another one will come by. The folder that is
                // looked into keeps the name until the others have lost it.
                let path = |place| format!("{}/{name}", self.base_of(place));
                let others = self.hierarchies.iter().filter(|other| other.mount != place.mount);
                if others.filter(|other| file::remove(&path(other)).is_err()).count() == 0 {
                    let _ = file::remove(&path(place));
                }
            }
        }
    }

    /// Removes the tree's own folders once all groups are gone; a process that was moved for v2's sake goes back.
    pub fn remove(&mut self) -> Result<()> {
        if let Some(base) = self.unified.take() {
            base.leave()?;
        }
        let Some(folder) = self.prefix.strip_suffix('/') else { return Ok(()) };
        for place in &self.hierarchies {
            remove_tree(&format!("{}/{folder}", self.base_of(place)))?;
        }
        self.prepared.clear();
        Ok(())
    }
}

/// Whether making a group is sure to leave this process where it is. On v2 it may have to move first, and alone: then
/// nothing may be cloned before.
pub fn stays_put() -> bool {
    file::read("/proc/self", "cgroup").is_ok_and(|text| v1_has_all(&text))
}

/// What is missing with what `error` tells, or the error if it is of another kind or not allowed.
fn allowed(missing: FeatureSet, options: &Options, error: Error) -> Result<FeatureSet> {
    match error.feature() {
        Some(feature) if options.allow_missing.has(feature) => Ok(missing.with(feature)),
        _ => Err(error),
    }
}

/// The controllers that these limits use; the flag tells whether the service cannot be had without it.
fn wanted(limits: &Limits, options: &Options, swap: impl Fn() -> bool) -> Vec<(Controller, bool)> {
    let memory = limits.memory != Memory::Unlimited || limits.memory_high.is_some() || (limits.swap.0 == 0 && swap());
    let mut wanted = vec![(Controller::Memory, memory), (Controller::Pids, true), (Controller::Freezer, false)];
    if !options.all_devices {
        wanted.push((Controller::Devices, true));
    }
    if limits.cpu.is_some() || limits.cpu_weight.is_some() {
        wanted.push((Controller::Cpu, true));
    }
    if limits.cpus.is_some() {
        wanted.push((Controller::Cpuset, true));
    }
    if !limits.io.is_empty() {
        wanted.push((Controller::Io, true));
    }
    if options.measure {
        wanted.push((Controller::Cpuacct, false));
    }
    wanted
}

/// The block devices that have limits.
fn block_devices(limits: &Limits) -> Result<Vec<IoDevice<'_>>> {
    let mut found = Vec::with_capacity(limits.io.len());
    for limit in &limits.io {
        let failed = |errno| Error::failed("limit block device", &limit.device, errno);
        let status = std::fs::metadata(&*limit.device).map_err(|error| failed(error.into()))?;
        if !status.file_type().is_block_device() {
            return Err(failed(Errno(libc::ENOTBLK)));
        }
        found.push((nix::sys::stat::major(status.rdev()), nix::sys::stat::minor(status.rdev()), limit));
    }
    Ok(found)
}

/// Writes one setting and checks that the file shows it.
pub(super) fn write(folder: &file::Folder<'_>, setting: &Setting, page: u64) -> Result<()> {
    let Setting { feature, file, value, .. } = setting;
    let path = || format!("{}/{file}", folder.path);
    let shows = match file::write_and_read(folder, file, value) {
        Ok(shows) => shows,
        Err(Errno(libc::ENOENT)) => return Err(Error::no_file(*feature, folder.path, file)),
        Err(errno) => return Err(Error::refused(*feature, &path(), value, errno)),
    };
    if setting.keeps.holds(value, &shows, page) {
        return Ok(());
    }
    Err(Error::not_kept(*feature, &path(), value, &shows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::Bytes;
    use std::fs;

    /// A folder that looks like a mounted hierarchy with the group `svc` in it, in use; writing to a file keeps the text.
    struct Fake {
        folder: tempfile::TempDir,
        tree: Tree,
    }

    const V2_FILES: [&str; 11] = [
        "memory.max",
        "memory.high",
        "memory.swap.max",
        "memory.oom.group",
        "pids.max",
        "cpu.max",
        "cpu.weight",
        "cpuset.cpus",
        "cgroup.procs",
        "cgroup.freeze",
        "io.max",
    ];

    fn v2(swaps: &str, without: &[&str]) -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("coracle/svc");
        fs::create_dir_all(&group).unwrap();
        for place in [folder.path(), &folder.path().join("coracle")] {
            fs::write(place.join("cgroup.subtree_control"), "memory pids cpu cpuset io").unwrap();
            fs::write(place.join("cgroup.controllers"), "cpuset cpu io memory pids").unwrap();
        }
        for file in V2_FILES.iter().filter(|file| !without.contains(file)) {
            fs::write(group.join(file), "").unwrap();
        }
        let mounts = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw", folder.path().display());
        let tree = Tree::from_text("0::/\n", &mounts, Some(swaps), "coracle/".to_string());
        Fake { folder, tree }
    }

    const NO_SWAP: &str = "Filename\tType\tSize\tUsed\tPriority\n";
    const SWAP: &str = "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0\tpartition\t1\t0\t-2\n";

    impl Fake {
        fn create(&mut self, limits: &Limits, allow_missing: FeatureSet) -> Result<Group> {
            self.tree.create("svc", limits, &[], &Options { allow_missing, ..Options::default() })
        }

        fn shows(&self, file: &str) -> String {
            fs::read_to_string(self.folder.path().join("coracle/svc").join(file)).unwrap()
        }
    }

    fn limits() -> Limits {
        Limits::with_memory(Memory::Max(Bytes(24 << 20)))
    }

    #[test]
    fn all_files_of_a_group_are_written() {
        let mut fake = v2(NO_SWAP, &[]);
        let group = fake.create(&Limits { cpu: Some(25), ..limits() }, FeatureSet::default()).unwrap();
        assert_eq!(fake.shows("memory.max"), "25165824");
        assert_eq!(fake.shows("memory.swap.max"), "0");
        assert_eq!(fake.shows("memory.oom.group"), "1");
        assert_eq!(fake.shows("pids.max"), "64");
        assert_eq!(fake.shows("cpu.max"), "25000 100000");
        assert_eq!(group.missing(), FeatureSet::default());
    }

    #[test]
    fn what_is_missing_fails_unless_it_is_allowed_and_then_it_is_told() {
        let mut fake = v2(NO_SWAP, &["pids.max"]);
        let error = fake.create(&limits(), FeatureSet::default()).unwrap_err();
        assert_eq!(error.feature(), Some(Feature::Pids));
        let message = error.to_string();
        assert!(message.contains("pids.max is not there") && message.contains("\"limits.pids\""), "{message}");
        let allowed = FeatureSet::default().with(Feature::Pids);
        assert_eq!(fake.create(&limits(), allowed).unwrap().missing(), allowed);
    }

    #[test]
    fn a_kernel_without_swap_accounting_is_fine_only_while_there_is_no_swap() {
        assert!(v2(NO_SWAP, &["memory.swap.max"]).create(&limits(), FeatureSet::default()).is_ok());
        let error = v2(SWAP, &["memory.swap.max"]).create(&limits(), FeatureSet::default()).unwrap_err();
        assert_eq!(error.feature(), Some(Feature::Swap));
        let some = Limits { swap: Bytes(1 << 20), ..limits() };
        let error = v2(NO_SWAP, &["memory.swap.max"]).create(&some, FeatureSet::default()).unwrap_err();
        assert_eq!(error.feature(), Some(Feature::Swap));
    }

    #[test]
    fn a_file_that_does_not_keep_its_value_is_an_error_even_if_its_feature_may_be_missing() {
        let mut fake = v2(NO_SWAP, &["memory.max"]);
        let path = fake.folder.path().join("coracle/svc/memory.max");
        std::os::unix::fs::symlink("/dev/null", path).unwrap();
        let error = fake.create(&limits(), FeatureSet::default().with(Feature::Memory)).unwrap_err();
        assert!(error.to_string().starts_with("limits.memory: ") && error.to_string().contains(" shows "), "{error}");
    }

    #[test]
    fn a_hierarchy_that_is_mounted_read_only_is_named() {
        let tree = Tree::from_text(
            "4:memory:/\n",
            "1 1 0:1 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
            Some(""),
            "coracle/".to_string(),
        );
        assert_eq!(tree.has(Controller::Memory), Err("/sys/fs/cgroup/memory is mounted read-only".to_string()));
        let reason = tree.has(Controller::Pids).unwrap_err();
        assert_eq!(reason, "no mounted cgroup hierarchy has the pids controller");
    }

    #[test]
    fn without_any_cgroup_the_first_limit_says_so() {
        let mut tree = Tree::from_text("", "", Some(NO_SWAP), "coracle/".to_string());
        let error = tree.create("svc", &limits(), &[], &Options::default()).unwrap_err();
        assert_eq!(error.feature(), Some(Feature::Memory), "{error}");
        let all = Feature::ALL.into_iter().fold(FeatureSet::default(), FeatureSet::with);
        let group = tree
            .create("svc", &limits(), &[], &Options { allow_missing: all, measure: true, ..Options::default() })
            .unwrap();
        assert!(group.missing().has(Feature::Devices) && group.pids().is_empty() && group.is_empty());
    }
}
