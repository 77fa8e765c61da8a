//! What a kernel and a board have, as it was looked at there: data that can be carried to a build host as JSON. Pure.

use super::features::{FEATURES, MOST, index};
use crate::base::units::Bytes;
use crate::image::ImageError;
use crate::image::platform::Platform;
use crate::image::text::{List, need, parse, quote, text};
use crate::objects;
use core::fmt::Write;

/// The version of the JSON form.
const VERSION: u32 = 1;
/// Device nodes kept: boards have some two hundred.
pub const DEVICES: usize = 4096;

/// A kernel and a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The kernel's release, `6.1.0`.
    pub release: Box<str>,
    /// What images must be made for.
    pub platform: Platform,
    /// The memory that the kernel has to give.
    pub memory: Option<Bytes>,
    /// The cores, as in a config's limits.cpus.
    pub cores: Box<str>,
    /// The features that are there, by their place in the table.
    pub(super) have: u64,
    /// Why others are not, or what those are like.
    pub(super) details: Vec<(usize, Box<str>)>,
    /// Device nodes beneath /dev: path, and whether it is a block device. Empty where only services are judged.
    pub devices: Vec<(Box<str>, bool)>,
}

impl Profile {
    /// Whether the feature called `name` is there.
    pub fn has(&self, name: &str) -> bool {
        index(name).is_some_and(|place| self.has_at(place))
    }

    /// The same by its place in the table.
    pub fn has_at(&self, place: usize) -> bool {
        place < MOST && self.have >> place & 1 == 1
    }

    /// What was found of a feature, beside whether it is there.
    pub fn detail(&self, place: usize) -> &str {
        self.details.iter().find(|(of, _)| *of == place).map_or("", |(_, text)| text)
    }

    /// Notes what was found of the feature at `place`: a detail, or why it is not there.
    pub(super) fn note(&mut self, place: usize, found: Result<String, String>) {
        if found.is_ok() && place < MOST {
            self.have |= 1 << place;
        }
        let (Ok(text) | Err(text)) = found;
        if !text.is_empty() {
            self.details.push((place, text.into()));
        }
    }

    /// The JSON form; `more` adds to the object of each feature.
    pub fn to_json(&self, more: impl Fn(usize, &mut String)) -> String {
        let mut out = format!("{{\"version\":{VERSION}");
        let memory = self.memory.map_or(0, |memory| memory.0);
        let Platform { architecture, variant, .. } = &self.platform;
        for (key, text) in
            [("release", &self.release), ("architecture", architecture), ("variant", variant), ("cores", &self.cores)]
        {
            let _ = write!(out, ",\"{key}\":");
            quote(&mut out, text);
        }
        let _ = write!(out, ",\"memory\":{memory},\"features\":[");
        for (place, feature) in FEATURES.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            let _ = write!(out, "{comma}\n{{\"name\":\"{}\",\"have\":{},\"detail\":", feature.name, self.has_at(place));
            quote(&mut out, self.detail(place));
            more(place, &mut out);
            out.push('}');
        }
        out.push_str("],\n\"devices\":[");
        for (number, (path, block)) in self.devices.iter().enumerate() {
            out.push_str(if number > 0 { ",{\"path\":" } else { "{\"path\":" });
            quote(&mut out, path);
            let _ = write!(out, ",\"block\":{block}}}");
        }
        out.push_str("]}");
        out
    }

    /// Reads the JSON form. Features that this coracle does not know are left out; those that are not named are missing.
    ///
    /// # Errors
    /// A sentence.
    pub fn from_json(bytes: &[u8]) -> Result<Profile, String> {
        Profile::read(bytes).map_err(|error| error.to_string())
    }

    fn read(bytes: &[u8]) -> Result<Profile, ImageError> {
        let what = "the board's profile";
        let raw: Raw<'_> = parse(what, bytes)?;
        let version = need(what, "version", raw.version)?;
        if version != VERSION {
            return Err(ImageError::failed(&format_args!("{what} is of version {version}, known is {VERSION}")));
        }
        let memory = need(what, "memory", raw.memory)?;
        let architecture = text(Some(need(what, "architecture", raw.architecture)?));
        let mut profile = Profile {
            release: text(Some(need(what, "release", raw.release)?)),
            platform: Platform::linux(&architecture, &text(raw.variant)),
            memory: (memory > 0).then_some(Bytes(memory)),
            cores: text(Some(need(what, "cores", raw.cores)?)),
            have: 0,
            details: Vec::new(),
            devices: Vec::new(),
        };
        for RawDevice { path, block } in raw.devices.0 {
            let path = text(Some(need(what, "path", path)?));
            profile.devices.push((path, need(what, "block", block)?));
        }
        for RawFeature { name, have, detail } in raw.features.0 {
            let Some(place) = index(&text(name)) else { continue };
            let detail = text(detail).into();
            profile.note(place, if need(what, "have", have)? { Ok(detail) } else { Err(detail) });
        }
        Ok(profile)
    }
}

objects! {
    struct Raw<'a> {
        version: Option<u32>,
        release: Option<&'a str>,
        architecture: Option<&'a str>,
        variant: Option<&'a str>,
        cores: Option<&'a str>,
        memory: Option<u64>,
        features: List<RawFeature<'a>, 256>,
        devices: List<RawDevice<'a>, DEVICES>,
    }

    struct RawFeature<'a> {
        name: Option<&'a str>,
        have: Option<bool>,
        detail: Option<&'a str>,
    }

    struct RawDevice<'a> {
        path: Option<&'a str>,
        block: Option<bool>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_reads_as_it_is_written_and_a_newer_one_is_refused() {
        let mut profile = Profile {
            release: "6.1.0-\"x\"".into(),
            platform: Platform::linux("arm", "v7"),
            memory: Some(Bytes(64 << 20)),
            cores: "0-1".into(),
            have: 0,
            details: Vec::new(),
            devices: vec![("/dev/ttyS1".into(), false), ("/dev/mmcblk0".into(), true)],
        };
        for place in 0..FEATURES.len() {
            profile.note(place, if place % 3 == 0 { Err(format!("why {place}")) } else { Ok(String::new()) });
        }
        let json = profile.to_json(|_, out| out.push_str(",\"verdict\":\"ok\""));
        assert_eq!(Profile::from_json(json.as_bytes()).unwrap(), profile);
        let newer = json.replace("\"version\":1", "\"version\":2");
        assert!(Profile::from_json(newer.as_bytes()).unwrap_err().contains("version 2"));
        for length in 0..json.len() - 1 {
            assert!(Profile::from_json(&json.as_bytes()[..length]).is_err(), "{length}");
        }
    }
}
