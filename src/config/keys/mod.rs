//! The one table of all keys: it drives the scanner, the JSON Schema and the reference.

mod device;
mod service;

use super::values::Text;
use crate::base::limits;
pub use service::SERVICE;

/// An object of the config.
pub struct Object {
    /// What messages call it: `a service`, `limits`.
    pub name: &'static str,
    /// Keys of which it must have one.
    pub either: &'static [&'static str],
    /// Its keys.
    pub keys: &'static [Key],
}

impl Object {
    /// The key called `name` and its place in the table.
    pub fn find(&self, name: &str) -> Option<(usize, &'static Key)> {
        self.keys.iter().enumerate().find(|(_, key)| key.name == name)
    }
}

/// A key of an object.
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// What holds without it, as the reference shows it; empty if it is required.
    pub default: &'static str,
    /// A value, as JSON.
    pub example: &'static str,
    /// What it is: a sentence.
    pub doc: &'static str,
}

/// What a key takes.
pub enum Kind {
    /// An object.
    Object(&'static Object),
    /// A list of at most so many objects.
    Objects(&'static Object, usize),
    /// A text.
    Text(Text),
    /// A list of at most so many texts.
    Texts(Text, usize),
    /// One of some words.
    Word(&'static [&'static str]),
    /// A whole number within bounds.
    Integer(i64, i64),
    /// `true` or `false`.
    Bool,
}

impl Kind {
    /// What a message says that the key takes.
    pub fn noun(&self) -> &'static str {
        match self {
            Kind::Object(_) => "an object",
            Kind::Objects(..) => "a list of objects",
            Kind::Text(_) | Kind::Word(_) => "a text",
            Kind::Texts(..) => "a list of texts",
            Kind::Integer(..) => "a whole number",
            Kind::Bool => "true or false",
        }
    }
}

/// The whole file.
pub static FILE: Object = Object {
    name: "the config",
    either: &[],
    keys: &[
        Key {
            default: "none",
            ..key(
                "$schema",
                Kind::Text(Text::Any),
                "\"/usr/share/coracle/coracle.schema.json\"",
                "Where an editor finds the schema of this file; coracle does not read it.",
            )
        },
        required("version", Kind::Integer(1, 1), "1", "The version of this format."),
        Key {
            default: "all defaults",
            ..key(
                "device",
                Kind::Object(&device::DEVICE),
                "{ \"images\": [\"/data/images\"] }",
                "What concerns the whole board.",
            )
        },
        required(
            "services",
            Kind::Objects(&SERVICE, limits::SERVICES),
            "[ { \"name\": \"web\", \"image\": \"web.tar\", \"limits\": { \"memory\": \"24M\" } } ]",
            "The services. They start in this order, except that what a service needs comes before it.",
        ),
    ],
};

/// What every object may hold besides: a key for fleet metadata, which coracle skips.
pub const FREE_PREFIX: &str = "x-";

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

const fn key(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { name, kind, required: false, default: "", example, doc }
}

const fn required(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { required: true, ..key(name, kind, example, doc) }
}

const fn optional(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { default, ..key(name, kind, example, doc) }
}
