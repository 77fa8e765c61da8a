//! `coracle inspect`: everything known about one service or the board, as JSON; the steps of a start.
#![forbid(unsafe_code)]

use super::{RUN_DIR, output, services};
use crate::base::exit;
use crate::base::json::decode;
use crate::base::suggest::did_you_mean;
use crate::control::client::{Answer, Client, ClientError};
use crate::control::wire::Verb;
use crate::log::format::{JsonText, Safe};
use crate::plan::CapSet;
use crate::supervisor::config_file;
use crate::supervisor::instance::Instance;
use crate::supervisor::steps::of_plan;
use argh::FromArgs;
use std::path::{Path, PathBuf};

/// Show everything about a service as JSON: what was asked for, what runs, what holds it. Without a supervisor: what
/// its instance record says. The word "device" in place of a service shows the board.
///
/// With --steps: what a start of the service does, step by step.
///
/// Example: coracle inspect --steps broker
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct InspectArgs {
    /// the steps of a start, one a line
    #[argh(switch)]
    steps: bool,
    /// with --steps: take the service from this config file; no supervisor is asked
    #[argh(option, short = 'c')]
    config: Option<PathBuf>,
    /// the supervisor's run directory
    #[argh(option, default = "RUN_DIR.into()")]
    run_dir: PathBuf,
    /// name of a service
    #[argh(positional)]
    service: String,
}

/// Runs the command.
pub fn run(args: &InspectArgs) -> u8 {
    let verb = match (args.steps, &args.config) {
        (true, Some(config)) => return steps_of(config, &args.service),
        (true, None) => Verb::Steps,
        (false, None) => Verb::Inspect,
        (false, Some(_)) => {
            output::complain(&"-c goes with --steps; `coracle check` shows what a config file says");
            return exit::USAGE;
        }
    };
    let answer = Client::connect(&args.run_dir).and_then(|mut client| {
        client.ask(verb, &args.service, 0, &mut |answer| match answer {
            Answer::Inspect(body) if args.steps => steps(&decode(body.trim_matches('"')).collect::<String>()),
            Answer::Inspect(body) => output::line(&body),
            Answer::Service(_) => {}
        })
    });
    match answer {
        Ok(done) if done.ok => exit::OK,
        Ok(done) => {
            output::complain(&done.message);
            done.code.max(exit::FAILED)
        }
        Err(error) => {
            if matches!(error, ClientError::NoSupervisor(_)) && !args.steps && !unsupervised(args) {
                return exit::NO_SUCH_SERVICE;
            }
            output::complain(&error);
            error.code()
        }
    }
}

/// Shows the steps of a start of a service of a config file.
fn steps_of(config: &Path, service: &str) -> u8 {
    let plan = match config_file::load(config) {
        Ok((plan, _)) => plan,
        Err(fault) => {
            output::explain(&fault);
            return exit::INVALID;
        }
    };
    let Some(index) = plan.find(service) else {
        let near = did_you_mean(service, &mut plan.services.iter().map(|service| service.name.as_str()));
        let hint = near.map_or(String::new(), |near| format!(": did you mean '{near}'?"));
        output::complain(&format_args!("there is no service '{service}' in {}{hint}", config.display()));
        return exit::NO_SUCH_SERVICE;
    };
    match of_plan(&plan, index) {
        Ok(text) => {
            steps(&text);
            exit::OK
        }
        Err(sentence) => {
            output::complain(&sentence);
            exit::FAILED
        }
    }
}

/// Paths and words come from the image as well: they are made safe for a terminal.
fn steps(text: &str) {
    text.lines().for_each(|line| output::line(&Safe(line.as_bytes())));
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
        Ok(Some(instance)) => output::line(&json(&instance)),
        Ok(None) => {}
        Err(sentence) => output::complain(&sentence),
    }
    true
}

fn json(instance: &Instance) -> String {
    let text = |text: &str| JsonText(text.as_bytes()).to_string();
    let groups: Vec<String> = instance.groups.iter().map(u32::to_string).collect();
    let caps: Vec<String> = match CapSet(instance.caps) {
        CapSet::ALL => vec![text("ALL")],
        kept => kept.names().map(text).collect(),
    };
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
