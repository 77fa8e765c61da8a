//! A command inside a running service: held to what its record says that the service is held to.
#![forbid(unsafe_code)]

use super::instance::Instance;
use crate::plan::{CapSet, Seccomp};
use crate::sandbox::cgroup::Join;
use crate::sandbox::enter::{Guest, limits_of};
use crate::sandbox::ids::Ids;

/// What is found out about an instance before its namespaces are entered: there its processes have other numbers.
#[derive(Debug)]
pub struct Inside {
    rlimits: Vec<(i32, u64, u64)>,
    oom_score: Option<String>,
    join: Join,
}

impl Inside {
    /// Looks at the instance's main process; the command will `join` this group.
    pub fn of(instance: &Instance, join: Join) -> Inside {
        let oom_score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", instance.main.pid)).ok();
        Inside { rlimits: limits_of(instance.main.pid), oom_score, join }
    }
}

/// The command `words` as one of the service's own processes: its user, environment, working directory.
///
/// # Errors
/// A sentence: the record is of no use.
pub fn guest(instance: Instance, words: Vec<String>, inside: Inside) -> Result<Guest, String> {
    Ok(Guest {
        words,
        working_dir: format!("/{}", instance.cwd.trim_start_matches('/')),
        ids: Ids {
            uid: instance.uid,
            gid: instance.gid,
            groups: heapless::Vec::from_slice(&instance.groups)
                .map_err(|_| format!("{} is in more groups than fit", instance.service))?,
            home: "/".into(),
        },
        env: instance.env,
        caps: CapSet(instance.caps),
        seccomp: match instance.seccomp.as_str() {
            "strict" => Seccomp::Strict,
            "log" => Seccomp::Log,
            "off" => Seccomp::Off,
            "default" => Seccomp::Default,
            other => return Err(format!("the instance record has an unknown seccomp mode {other:?}")),
        },
        rlimits: inside.rlimits,
        // The kernel's own text, with its newline.
        oom_score_adj: inside.oom_score.map(|text| text.trim().to_owned()).filter(|text| text != "0"),
        join: inside.join,
        terminal: false,
        container: !instance.host_root,
    })
}
