//! The verdict on a profile, feature by feature. Pure.

use super::features::{FEATURES, Feature};
use super::profile::Profile;

/// How a feature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is there.
    Ok,
    /// Something else is in force in its place.
    Degraded,
    /// Nothing is.
    Missing,
}

impl Verdict {
    /// As a word.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Degraded => "degraded",
            Verdict::Missing => "missing",
        }
    }
}

/// What is said about one feature.
#[derive(Debug)]
pub struct Finding<'a> {
    /// The feature.
    pub feature: &'static Feature,
    /// How it stands.
    pub verdict: Verdict,
    /// Why it is not there, or what it is like.
    pub detail: &'a str,
}

impl Finding<'_> {
    /// What to change, for a feature that is not there.
    pub fn change(&self) -> String {
        match self.feature.options {
            [] => self.feature.otherwise.into(),
            options => options.join(", "),
        }
    }
}

/// Judges every feature of the table.
pub fn judge(profile: &Profile) -> impl Iterator<Item = Finding<'_>> {
    FEATURES.iter().enumerate().map(|(place, feature)| Finding {
        feature,
        verdict: match profile.has_at(place) {
            true => Verdict::Ok,
            false if feature.instead.is_empty() => Verdict::Missing,
            false => Verdict::Degraded,
        },
        detail: profile.detail(place),
    })
}

/// Whether coracle can do its work with this profile.
pub fn suffices(profile: &Profile) -> bool {
    judge(profile).all(|finding| !finding.feature.required || finding.verdict == Verdict::Ok)
}
