//! Which platform an image is for, and whether this machine runs it.
#![forbid(unsafe_code)]

use core::fmt;

/// A platform in the words of the OCI image-spec (image-index.md): GOOS, GOARCH and the CPU variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: Box<str>,
    /// `amd64`, `386`, `arm`, `arm64`, `riscv64`, …
    pub architecture: Box<str>,
    /// `v6`, `v7`, `v8`, …; empty where the architecture has none.
    pub variant: Box<str>,
}

impl Platform {
    /// A Linux platform.
    pub fn linux(architecture: &str, variant: &str) -> Platform {
        Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// The platform that this binary was built for. 32-bit ARM counts as v7 where the build says so, else as v6.
    pub fn native() -> Platform {
        match std::env::consts::ARCH {
            "x86_64" => Platform::linux("amd64", ""),
            "x86" => Platform::linux("386", ""),
            "aarch64" => Platform::linux("arm64", "v8"),
            "arm" => Platform::linux("arm", if cfg!(target_feature = "v7") { "v7" } else { "v6" }),
            other => Platform::linux(other, ""),
        }
    }

    /// Reads `arm64`, `arm/v7`, `linux/amd64` or a kernel's name of a machine (`x86_64`, `armv7l`).
    pub fn parse(text: &str) -> Option<Platform> {
        let text = text.strip_prefix("linux/").unwrap_or(text);
        let (architecture, variant) = text.split_once('/').unwrap_or((text, ""));
        let known = |architecture, default: &str| {
            Some(Platform::linux(architecture, if variant.is_empty() { default } else { variant }))
        };
        match architecture {
            "amd64" | "x86_64" => known("amd64", ""),
            "386" | "i386" | "i686" | "x86" => known("386", ""),
            "arm64" | "aarch64" => known("arm64", "v8"),
            "arm" | "armv7" | "armv7l" | "armhf" => known("arm", "v7"),
            "armv6" | "armv6l" | "armel" => known("arm", "v6"),
            "armv5" => known("arm", "v5"),
            "riscv64" | "ppc64le" | "s390x" | "mips64le" | "mipsle" | "loong64" => known(architecture, ""),
            _ => None,
        }
    }

    /// How well an image `offered` for some platform runs on this one: `None` not at all, else the lower the better.
    ///
    /// Only ARM has an order: a v7 core runs v6 and v5 code. An image of a 32-bit architecture is never taken for a
    /// 64-bit machine unless asked for: the sandbox's filters are made for the machine's own.
    pub fn fitness(&self, offered: &Platform) -> Option<u8> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        match &*self.architecture {
            "arm" => {
                // An image without a variant is v7 by the containerd convention that registries follow.
                let mine = arm_version(&self.variant)?;
                let theirs = arm_version(&offered.variant)?;
                mine.checked_sub(theirs)
            }
            // arm64 has v8 alone in practice; amd64's v2 to v4 levels cannot be judged from a build, so plain is best.
            "arm64" => (offered.variant.is_empty() || &*offered.variant == "v8" || offered.variant == self.variant)
                .then_some(0),
            _ if offered.variant == self.variant => Some(0),
            _ => offered.variant.is_empty().then_some(1),
        }
    }
}

fn arm_version(variant: &str) -> Option<u8> {
    match variant {
        "" | "v7" => Some(7),
        "v5" => Some(5),
        "v6" => Some(6),
        "v8" => Some(8),
        _ => None,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_board_runs_its_own_and_older_code() {
        let v7 = Platform::parse("arm/v7").unwrap();
        let fit = |text| v7.fitness(&Platform::parse(text).unwrap());
        assert_eq!(fit("arm/v7"), Some(0));
        assert_eq!(fit("arm/v6"), Some(1));
        assert_eq!(fit("arm/v8"), None);
        assert_eq!(fit("arm64"), None);
        let v6 = Platform::parse("armv6l").unwrap();
        assert_eq!(v6.fitness(&v7), None);
    }

    #[test]
    fn a_64_bit_board_does_not_take_a_32_bit_image() {
        let amd64 = Platform::parse("x86_64").unwrap();
        assert_eq!(amd64.fitness(&Platform::linux("amd64", "")), Some(0));
        assert_eq!(amd64.fitness(&Platform::linux("386", "")), None);
        assert_eq!(amd64.fitness(&Platform::linux("amd64", "v3")), None);
        assert_eq!(amd64.fitness(&Platform { os: "windows".into(), ..amd64.clone() }), None);
        let arm64 = Platform::parse("aarch64").unwrap();
        assert_eq!(arm64.fitness(&Platform::linux("arm64", "")), Some(0));
    }

    #[test]
    fn platforms_print_in_the_words_of_the_field() {
        assert_eq!(Platform::parse("armv7l").unwrap().to_string(), "linux/arm/v7");
        assert_eq!(Platform::parse("linux/amd64").unwrap().to_string(), "linux/amd64");
        assert_eq!(Platform::parse("vax"), None);
    }
}
