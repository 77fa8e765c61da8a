//! The one table of all keys: it drives the scanner, the JSON Schema and the reference.

mod device;
mod health;
mod life;
mod service;

use super::values::Text;
use crate::base::limits;
pub use device::DEVICE;
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
    /// A value, as JSON.
    pub example: &'static str,
    /// What schema and reference say of it.
    pub docs: Docs,
    /// Whether its texts may hold `${name}`.
    pub vars: bool,
}

/// What schema and reference say of a key. The tests write both; the program, which never shows these texts, is without.
pub struct Docs {
    /// What holds without the key, unless it is required.
    #[cfg(test)]
    pub default: &'static str,
    /// What it is: a sentence.
    #[cfg(test)]
    pub text: &'static str,
}

impl Docs {
    #[cfg(test)]
    const fn new(default: &'static str, text: &'static str) -> Docs {
        Docs { default, text }
    }

    #[cfg(not(test))]
    const fn new(_default: &'static str, _text: &'static str) -> Docs {
        Docs {}
    }
}

/// What a key takes.
pub enum Kind {
    /// An object.
    Object(&'static Object),
    /// An object, or a list of at most so many.
    OneOrMore(&'static Object, usize),
    /// A list of at most so many objects.
    Objects(&'static Object, usize),
    /// A list of at most so many objects that hold any keys of that object; `name` alone is required.
    Partial(&'static Object, usize),
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
            Kind::OneOrMore(..) => "an object or a list of objects",
            Kind::Objects(..) | Kind::Partial(..) => "a list of objects",
            Kind::Text(_) | Kind::Word(_) => "a text",
            Kind::Texts(..) => "a list of texts",
            Kind::Integer(..) => "a whole number",
            Kind::Bool => "true or false",
        }
    }
}

/// The main file.
pub static FILE: Object = Object {
    name: "the config",
    either: &[],
    keys: &[
        WHERE_THE_SCHEMA_IS,
        required("version", Kind::Integer(1, 1), "1", "The version of this format."),
        optional(
            "include",
            Kind::Texts(Text::Pattern, limits::INCLUDES),
            "[]",
            "[\"/etc/coracle/services.d/*.json\"]",
            "Further files, in this order, those of one pattern sorted by name: absolute paths whose last part may hold \
             `*`, which stands for any characters (none of a leading dot). They hold `services`, `overrides` and `vars`.",
        ),
        VARS,
        optional(
            "device",
            Kind::Object(&DEVICE),
            "all defaults",
            "{ \"images\": [\"/data/images\"] }",
            "What concerns the whole board.",
        ),
        Key { required: true, ..SERVICES },
        OVERRIDES,
    ],
};

/// A file that the main one includes.
pub static INCLUDED: Object =
    Object { name: "an included file", either: &[], keys: &[WHERE_THE_SCHEMA_IS, VARS, SERVICES, OVERRIDES] };

const WHERE_THE_SCHEMA_IS: Key = optional(
    "$schema",
    Kind::Text(Text::Any),
    "none",
    "\"/usr/share/coracle/coracle.schema.json\"",
    "Where an editor finds the schema of this file; coracle does not read it.",
);

const VARS: Key = optional(
    "vars",
    Kind::Objects(&VAR, limits::VARS),
    "[]",
    "[ { \"name\": \"site\", \"value\": \"north\" } ]",
    "What `${name}` stands for, in `hostname`, `env`, `command` and the names of volumes; `$${` is a literal `${`.",
);

const SERVICES: Key = optional(
    "services",
    Kind::Objects(&SERVICE, limits::SERVICES),
    "[]",
    "[ { \"name\": \"web\", \"image\": \"web.tar\", \"limits\": { \"memory\": \"24M\" } } ]",
    "The services. They start in this order, those of included files last, except that what a service needs comes before \
     it.",
);

const OVERRIDES: Key = optional(
    "overrides",
    Kind::Partial(&SERVICE, limits::SERVICES),
    "[]",
    "[ { \"name\": \"web\", \"limits\": { \"memory\": \"32M\" } } ]",
    "What replaces keys of the service with that name, wherever it stands. A list is replaced as a whole; of `limits`, \
     `restart`, `stop`, `log`, `health` and `when` only the keys that are written. Later files come last.",
);

/// An entry of `vars`.
pub static VAR: Object = Object {
    name: "a variable",
    either: &["value", "file"],
    keys: &[
        required("name", Kind::Text(Text::VarName), "\"serial\"", "Its name: letters, digits and `_`."),
        optional("value", Kind::Text(Text::VarValue), "this or `file`", "\"north\"", "What it stands for."),
        optional(
            "file",
            Kind::Text(Text::Path),
            "this or `value`",
            "\"/sys/firmware/devicetree/base/serial-number\"",
            "A file of the board that holds it, one line, read when the config is.",
        ),
        optional(
            "default",
            Kind::Text(Text::VarValue),
            "needed by `file`",
            "\"unknown\"",
            "What it stands for where the file is missing, cannot be used, or makes a text impossible. The config is \
             judged with it.",
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

const fn required(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { name, kind, required: true, example, docs: Docs::new("", doc), vars: false }
}

const fn optional(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, kind, required: false, example, docs: Docs::new(default, doc), vars: false }
}

/// The key, whose texts may hold variables.
const fn with_vars(key: Key) -> Key {
    Key { vars: true, ..key }
}
