//! `coracle doctor`: what this kernel and board can enforce, and what to change.
#![forbid(unsafe_code)]

use super::output;
use crate::base::exit;
use crate::base::json::Quoted;
use crate::supervisor::board::doctor::{Finding, Verdict, judge, suffices};
use crate::supervisor::board::{Profile, features};
use argh::FromArgs;
use std::fmt::Write;

/// Show what this kernel and board can enforce, feature by feature: what is in force in place of what is missing, what is
/// lost, and which kernel option brings it. Exits with 1 if something is missing that coracle cannot do without.
///
/// With --json: the same as a profile, by which `coracle check --board` and `coracle bake --board` judge on a build host.
///
/// Example: coracle doctor --json > board.json
#[derive(FromArgs)]
#[argh(help_triggers("-h", "--help"))]
pub struct DoctorArgs {
    /// print JSON
    #[argh(switch)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &DoctorArgs) -> u8 {
    let profile = Profile::full();
    output::line(&if args.json { json(&profile) } else { text(&profile) });
    if suffices(&profile) { exit::OK } else { exit::FAILED }
}

fn text(profile: &Profile) -> String {
    let memory = profile.memory.map_or("unknown".into(), |memory| memory.to_string());
    let mut out = format!(
        "kernel {}, {}, cores {}, memory {memory}, {} device nodes\n\n",
        profile.release,
        profile.platform,
        profile.cores,
        profile.devices.len()
    );
    let mut count = [0; 3];
    for finding in judge(profile) {
        let Finding { feature, verdict, detail } = &finding;
        count[*verdict as usize] += 1;
        let needed = if feature.required && *verdict != Verdict::Ok { "needed: " } else { "" };
        let line = format!("{:<9} {:<18} {needed}{detail}", verdict.word(), feature.name);
        let _ = writeln!(out, "{}", line.trim_end());
        if *verdict == Verdict::Ok {
            continue;
        }
        if !feature.instead.is_empty() {
            let _ = writeln!(out, "          = in force: {}", feature.instead);
        }
        let _ = writeln!(out, "          = lost: {}", feature.lost);
        let _ = writeln!(out, "          = change: {}", finding.change());
    }
    let [good, degraded, missing] = count;
    let _ = write!(out, "\n{} features: {good} ok, {degraded} degraded, {missing} missing", features::FEATURES.len());
    out
}

fn json(profile: &Profile) -> String {
    let findings: Vec<Finding<'_>> = judge(profile).collect();
    profile.to_json(|place, out| {
        let Some(finding) = findings.get(place) else { return };
        let Finding { feature, verdict, .. } = finding;
        let _ = write!(out, ",\"verdict\":\"{}\",\"required\":{}", verdict.word(), feature.required);
        if *verdict != Verdict::Ok {
            let (instead, lost, change) = (Quoted(feature.instead), Quoted(feature.lost), finding.change());
            let _ = write!(out, ",\"instead\":{instead},\"lost\":{lost},\"change\":{}", Quoted(&change));
        }
    })
}
