//! `coracle inspect`: everything known about one service, as JSON.
#![forbid(unsafe_code)]

use super::{RUN_DIR, output, services};
use crate::base::exit;
use crate::control::client::{Answer, Client, ClientError};
use crate::control::wire::Verb;
use crate::log::format::JsonText;
use crate::supervisor::instance::Instance;
use argh::FromArgs;
use std::path::PathBuf;

/// Show everything about a service as JSON: what was asked for, what runs, what holds it. Without a supervisor: what
/// its instance record says. The word "device" in place of a service shows the board.
///
/// Example: coracle inspect broker
#[derive(FromArgs)]
#[argh(subcommand, name = "inspect", help_triggers("-h", "--help"))]
pub struct InspectArgs {
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// name of a service
    #[argh(positional)]
    service: String,
}

/// Runs the command.
pub fn run(args: &InspectArgs) -> u8 {
    let answer = Client::connect(&args.run_dir).and_then(|mut client| {
        client.ask(Verb::Inspect, &args.service, 0, &mut |answer| {
            if let Answer::Inspect(body) = answer {
                output::line(body);
            }
        })
    });
    match answer {
        Ok(done) if done.ok => exit::OK,
        Ok(done) => {
            output::complain(&done.message);
            done.code.max(exit::FAILED)
        }
        Err(error) => {
            if matches!(error, ClientError::NoSupervisor(_)) && !unsupervised(args) {
                return exit::NO_SUCH_SERVICE;
            }
            output::complain(&error.to_string());
            error.code()
        }
    }
}

/// Shows what the instance record says; `false` if there is no such service.
fn unsupervised(args: &InspectArgs) -> bool {
    let known = services::known(&args.run_dir);
    if known.is_empty() {
        return true;
    }
    if !services::check(&args.run_dir, &args.service) {
        return false;
    }
    match Instance::read(&args.run_dir, &args.service) {
        Ok(Some(instance)) => output::line(json(&instance)),
        Ok(None) => {}
        Err(sentence) => output::complain(&sentence),
    }
    true
}

fn json(instance: &Instance) -> String {
    let text = |text: &str| JsonText(text.as_bytes()).to_string();
    let groups: Vec<String> = instance.groups.iter().map(u32::to_string).collect();
    let caps: Vec<String> = crate::plan::CapSet(instance.caps).names().map(text).collect();
    let env: Vec<String> = instance.env.iter().map(|entry| text(entry)).collect();
    format!(
        "{{\"name\":{},\"supervised\":false,\"running\":{},\"init\":{},\"pid\":{},\"uid\":{},\"gid\":{},\"groups\":[{}],\
         \"capabilities\":[{}],\"seccomp\":{},\"working_dir\":{},\"env\":[{}],\"cgroup\":{}}}",
        text(&instance.service),
        instance.init.is_alive(),
        instance.init.pid,
        instance.main.pid,
        instance.uid,
        instance.gid,
        groups.join(","),
        caps.join(","),
        text(&instance.seccomp),
        text(&instance.cwd),
        env.join(","),
        text(&instance.cgroup),
    )
}
