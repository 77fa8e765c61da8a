//! What concerns the whole board.

use super::{Boot, FeatureSet};
use crate::base::units::Bytes;

/// The device part of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Host name to set as PID 1, if any.
    pub hostname: Option<Box<str>>,
    /// Folders searched for images, in this order; the first hit wins. Absolute.
    pub images: Vec<Box<str>>,
    /// Folder for unpacked layers and records. Absolute.
    pub state: Box<str>,
    /// Folder of a read-only store that is looked in first, if any. Absolute.
    pub store: Option<Box<str>>,
    /// Memory of the smallest board of the fleet; `None`: take the machine's own.
    pub memory: Option<Bytes>,
    /// What the kernel and the supervisor keep of it.
    pub memory_reserve: Bytes,
    /// What this fleet's kernels may lack without a service being held.
    pub allow_missing: FeatureSet,
    /// Restarts after failures that all services together have in a minute; 0: no bound.
    pub restarts_per_minute: u16,
    /// Crash records of all services together in a day.
    pub crash_records: u16,
    /// Resets in a row that we announced or the watchdog caused, after which only lifelines run.
    pub max_resets: u8,
    /// Size of a service's log ring unless it says otherwise.
    pub log_ring: Bytes,
    /// Caps on images, each against one kind of hostile archive.
    pub image_caps: ImageCaps,
    /// What PID 1 brings up before the first service.
    pub boot: Boot,
}

impl Default for Device {
    fn default() -> Self {
        Device {
            hostname: None,
            images: Vec::new(),
            state: "/var/lib/coracle".into(),
            store: None,
            memory: None,
            memory_reserve: Bytes(24 << 20),
            allow_missing: FeatureSet::default(),
            restarts_per_minute: 600,
            crash_records: 16,
            max_resets: 3,
            log_ring: Bytes(32 << 10),
            image_caps: ImageCaps::default(),
            boot: Boot::default(),
        }
    }
}

/// Caps on what one image may ask for while it is unpacked. Exceeding one refuses the image with that cap's own message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageCaps {
    /// Decompressed bytes of all layers together.
    pub bytes: Bytes,
    /// Decompressed bytes per compressed byte, judged once 1 MiB has come out.
    pub ratio: u32,
    /// Entries of all layers together.
    pub entries: u32,
    /// Components of one path.
    pub path_depth: u16,
    /// Bytes of the pax and GNU extension records of one entry.
    pub pax: Bytes,
    /// The window that a zstd frame may ask for: memory while it is decoded.
    pub zstd_window: Bytes,
    /// Bytes of one manifest, index or image config.
    pub manifest: Bytes,
}

impl Default for ImageCaps {
    fn default() -> Self {
        ImageCaps {
            bytes: Bytes(4 << 30),
            ratio: 200,
            entries: 400_000,
            path_depth: 64,
            pax: Bytes(64 << 10),
            zstd_window: Bytes(8 << 20),
            manifest: Bytes(256 << 10),
        }
    }
}
