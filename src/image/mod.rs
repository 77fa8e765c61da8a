//! Image archives to verified layers in a store.
//!
//! | module | what it is |
//! |---|---|
//! | [`reference`] | `FILE`, `FILE#name:tag`, `FILE#sha256:…`, and where such a file is looked for |
//! | [`digest`], [`text`] | a SHA-256 and a JSON text, as image files write them |
//! | [`manifest`], [`config`], [`platform`] | what the JSON files of an image say |
//! | [`record`] | what the store remembers of an unpacked image |
//! | [`archive`] | from an archive's members to the layers of one image |
//! | [`store`] | layers and records on disk |
//! | [`worker`] | the confined process that unpacks |
//! | [`bake`] | images to a read-only store for a firmware |
//! | [`tree`] | the checksum of a layer's files |
//! | [`mountable`] | squashfs and EROFS files, which are mounted as they are |
//! | [`pack`] | a folder to an image archive |
//! | [`user`] | an image's passwd and group files, read from its layers |
//! | [`tar`], [`decompress`], [`whiteout`] | archives, as streams |
//! | `inodes` | what is known of files, by inode |
//! | [`layer`] | one layer's archive to a directory |

pub mod archive;
pub mod bake;
pub mod config;
pub mod decompress;
pub mod digest;
pub mod error;
mod inodes;
pub mod layer;
pub mod manifest;
pub mod mountable;
pub mod pack;
pub mod platform;
pub mod record;
pub mod reference;
pub mod store;
pub mod tar;
pub mod text;
pub mod tree;
pub mod user;
pub mod whiteout;
pub mod worker;

pub use error::{ImageError, Kind};
