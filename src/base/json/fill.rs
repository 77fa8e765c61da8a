//! Filling structs from JSON: one visitor for `serde-json-core` that fills whatever says where its values go.
//!
//! serde's derive makes a visitor for each struct and each type of value, and each is thousands of bytes of program.
//! Here a struct says for a key which of its fields takes the value and as what ([`Place`]), and the one visitor does the
//! rest. What a struct has not is skipped or refused, as the caller asks; `null` leaves a field as it is; any other value
//! takes the place of the one before, of which only an object that is always there keeps what it is not given anew. So of
//! a key that is there twice the last value counts, and a text from outside goes through [`super::check`] or the scanner
//! first.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json_core::de::Error;

/// Where a value goes, and as what it is read.
pub enum Place<'p, 'a> {
    /// A text as typed, escapes not decoded.
    Text(&'p mut Option<&'a str>),
    /// The same as an item of a list.
    Item(&'p mut &'a str),
    /// `true` or `false`.
    Flag(&'p mut Option<bool>),
    /// A number that is not negative.
    Number(&'p mut dyn Number),
    /// A number of either sign.
    Signed(&'p mut Option<i64>),
    /// A word of a fixed list.
    Word(&'p mut dyn Word),
    /// Anything: only whether it is there.
    Seen(&'p mut bool),
    /// A list.
    List(&'p mut dyn List<'a>),
    /// An object.
    Object(&'p mut dyn Object<'a>),
}

/// What a JSON object is read into.
pub trait Object<'a> {
    /// Where the value of `key` goes; `None`: there is no such field.
    fn place(&mut self, key: &str) -> Option<Place<'_, 'a>>;
}

/// What a JSON list is read into.
pub trait List<'a> {
    /// Where the next item goes; `None`: the list is full.
    fn next(&mut self) -> Option<Place<'_, 'a>>;
}

/// A number of some width.
pub trait Number {
    /// Takes `value`; `false`: it is too large.
    fn set(&mut self, value: u64) -> bool;
}

/// A word of a fixed list.
pub trait Word {
    /// Takes `word`; `false`: it is not on the list.
    fn set(&mut self, word: &str) -> bool;
}

/// Where `key` is among `keys`.
pub fn place_of(key: &str, keys: &[&str]) -> Option<usize> {
    keys.iter().position(|known| *known == key)
}

/// A field: as what it is read follows from its type.
pub trait Slot<'a> {
    /// The field as a place. Called only if there is a value other than `null`.
    fn slot(&mut self) -> Place<'_, 'a>;
}

impl<'a> Slot<'a> for Option<&'a str> {
    fn slot(&mut self) -> Place<'_, 'a> {
        Place::Text(self)
    }
}

impl<'a> Slot<'a> for &'a str {
    fn slot(&mut self) -> Place<'_, 'a> {
        Place::Item(self)
    }
}

impl<'a> Slot<'a> for Option<bool> {
    fn slot(&mut self) -> Place<'_, 'a> {
        Place::Flag(self)
    }
}

impl<'a> Slot<'a> for Option<i64> {
    fn slot(&mut self) -> Place<'_, 'a> {
        Place::Signed(self)
    }
}

impl<'a> Slot<'a> for bool {
    fn slot(&mut self) -> Place<'_, 'a> {
        Place::Seen(self)
    }
}

macro_rules! numbers {
    ($($width:ty)*) => { $(
        impl Number for Option<$width> {
            fn set(&mut self, value: u64) -> bool {
                *self = <$width>::try_from(value).ok();
                self.is_some()
            }
        }

        impl<'a> Slot<'a> for Option<$width> {
            fn slot(&mut self) -> Place<'_, 'a> {
                Place::Number(self)
            }
        }
    )* };
}

numbers!(u8 u16 u32 u64);

impl<'a, T: Slot<'a> + Default, const N: usize> List<'a> for heapless::Vec<T, N> {
    fn next(&mut self) -> Option<Place<'_, 'a>> {
        self.push(T::default()).ok()?;
        self.last_mut().map(T::slot)
    }
}

impl<'a, T: Slot<'a> + Default, const N: usize> Slot<'a> for heapless::Vec<T, N> {
    fn slot(&mut self) -> Place<'_, 'a> {
        Place::List(self)
    }
}

impl<'a, T: Slot<'a> + Default, const N: usize> Slot<'a> for Option<heapless::Vec<T, N>> {
    fn slot(&mut self) -> Place<'_, 'a> {
        Place::List(self.insert(heapless::Vec::new()))
    }
}

/// Makes structs that JSON objects are read into; all their fields begin as what `Default` says. A field's key is its
/// name, or what stands behind it: `kind = "type": Option<&'a str>`.
#[macro_export]
macro_rules! objects {
    ($($(#[$about:meta])* $see:vis struct $name:ident $(<$life:lifetime>)? {
        $($(#[$doc:meta])* $seen:vis $field:ident $(= $key:literal)?: $type:ty,)*
    })*) => { $(
        $(#[$about])*
        #[derive(Default)]
        $see struct $name $(<$life>)? {
            $($(#[$doc])* $seen $field: $type,)*
        }

        $crate::objects!(@life $name $(<$life>)? { $($field $(= $key)?,)* });
    )* };
    (@life $name:ident { $($fields:tt)* }) => { $crate::objects!(@impl 'a [$name] { $($fields)* }); };
    (@life $name:ident<$life:lifetime> { $($fields:tt)* }) => {
        $crate::objects!(@impl $life [$name<$life>] { $($fields)* });
    };
    (@impl $life:lifetime [$($name:tt)*] { $($field:ident $(= $key:literal)?,)* }) => {
        impl<$life> $crate::base::json::fill::Object<$life> for $($name)* {
            fn place(&mut self, key: &str) -> Option<$crate::base::json::fill::Place<'_, $life>> {
                #[allow(non_camel_case_types)]
                enum At { $($field),* }
                const KEYS: &[&str] = &[$($crate::objects!(@key $field $($key)?)),*];
                let at = $crate::base::json::fill::place_of(key, KEYS)?;
                $(if at == At::$field as usize {
                    return Some($crate::base::json::fill::Slot::slot(&mut self.$field));
                })*
                None
            }
        }

        impl<$life> $crate::base::json::fill::Slot<$life> for $($name)* {
            fn slot(&mut self) -> $crate::base::json::fill::Place<'_, $life> {
                $crate::base::json::fill::Place::Object(self)
            }
        }

        impl<$life> $crate::base::json::fill::Slot<$life> for Option<$($name)*> {
            fn slot(&mut self) -> $crate::base::json::fill::Place<'_, $life> {
                $crate::base::json::fill::Place::Object(self.insert(Default::default()))
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}

/// Makes `Option` of an enum a field that takes the words of a fixed list.
#[macro_export]
macro_rules! words {
    ($($name:ident { $($word:literal => $variant:ident),* $(,)? })*) => { $(
        impl $crate::base::json::fill::Word for Option<$name> {
            fn set(&mut self, word: &str) -> bool {
                const WORDS: &[(&str, $name)] = &[$(($word, $name::$variant)),*];
                *self = WORDS.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
                self.is_some()
            }
        }

        impl<'a> $crate::base::json::fill::Slot<'a> for Option<$name> {
            fn slot(&mut self) -> $crate::base::json::fill::Place<'_, 'a> {
                $crate::base::json::fill::Place::Word(self)
            }
        }
    )* };
}

/// What becomes of keys that a struct has no field for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// They are skipped, with what they hold.
    Skipped,
    /// They are an error.
    Refused,
}

/// Reads the one value of `text` into `place`.
///
/// # Errors
/// Where `serde-json-core` cannot go on, or a value does not fit its place.
pub fn fill<'a>(text: &'a [u8], unknown: Unknown, place: Place<'_, 'a>) -> Result<(), Error> {
    let mut deserializer = serde_json_core::de::Deserializer::new(text, None);
    read(&mut deserializer, unknown, place)?;
    deserializer.end()?;
    Ok(())
}

fn read<'a, D: Deserializer<'a>>(from: D, unknown: Unknown, place: Place<'_, 'a>) -> Result<(), D::Error> {
    let fits = match place {
        Place::Text(text) => {
            *text = Some(<&str>::deserialize(from)?);
            true
        }
        Place::Item(text) => {
            *text = <&str>::deserialize(from)?;
            true
        }
        Place::Flag(flag) => {
            *flag = Some(bool::deserialize(from)?);
            true
        }
        Place::Number(number) => number.set(u64::deserialize(from)?),
        Place::Signed(number) => {
            *number = Some(i64::deserialize(from)?);
            true
        }
        Place::Word(word) => word.set(<&str>::deserialize(from)?),
        Place::Seen(seen) => {
            *seen = true;
            IgnoredAny::deserialize(from)?;
            true
        }
        Place::List(list) => return from.deserialize_seq(Many { holder: Holder::List(list), unknown }),
        Place::Object(object) => return from.deserialize_map(Many { holder: Holder::Object(object, ""), unknown }),
    };
    if fits { Ok(()) } else { Err(D::Error::custom("a value that does not fit")) }
}

/// What holds the places of many values; of an object, the key of the next one.
enum Holder<'p, 'a> {
    List(&'p mut dyn List<'a>),
    Object(&'p mut dyn Object<'a>, &'a str),
}

/// Reads many values into their places.
struct Many<'p, 'a> {
    holder: Holder<'p, 'a>,
    unknown: Unknown,
}

impl<'a> Visitor<'a> for Many<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(One(&mut self))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(next) = members.next_key()? {
            if let Holder::Object(_, key) = &mut self.holder {
                *key = next;
            }
            members.next_value_seed(One(&mut self))?;
        }
        Ok(())
    }
}

/// Reads the next of many values.
struct One<'m, 'p, 'a>(&'m mut Many<'p, 'a>);

impl<'a> DeserializeSeed<'a> for One<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_option(self)
    }
}

impl<'a> Visitor<'a> for One<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        match self.0.holder {
            Holder::List(_) => Err(E::custom("null in a list")),
            Holder::Object(..) => Ok(()),
        }
    }

    fn visit_some<D: Deserializer<'a>>(self, from: D) -> Result<(), D::Error> {
        let unknown = self.0.unknown;
        let place = match &mut self.0.holder {
            Holder::List(list) => Some(list.next().ok_or_else(|| D::Error::custom("a list is too long"))?),
            Holder::Object(object, key) => object.place(key),
        };
        match place {
            Some(place) => read(from, unknown, place),
            None if unknown == Unknown::Skipped => IgnoredAny::deserialize(from).map(|_| ()),
            None => Err(D::Error::custom("a key that is not known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Colour {
        Red,
        Green,
    }

    words! { Colour { "red" => Red, "green" => Green } }

    objects! {
        struct Inner<'a> {
            text: Option<&'a str>,
            colour: Option<Colour>,
        }

        struct Outer<'a> {
            kind = "type": Option<&'a str>,
            small: Option<u8>,
            signed: Option<i64>,
            flag: Option<bool>,
            there: bool,
            list: Option<heapless::Vec<&'a str, 2>>,
            inner: Inner<'a>,
            maybe: Option<Inner<'a>>,
            many: heapless::Vec<Inner<'a>, 2>,
        }
    }

    fn outer(text: &str, unknown: Unknown) -> Result<Outer<'_>, Error> {
        let mut outer = Outer::default();
        fill(text.as_bytes(), unknown, outer.slot()).map(|()| outer)
    }

    #[test]
    fn every_kind_of_value_finds_its_field() {
        let text = r#" {"type":"a\n","small":255,"signed":-9,"flag":true,"there":[{}],"list":["x","y"],"more":{"z":[1]},
            "inner":{"text":"t","colour":"green"},"maybe":{},"many":[{"text":"1"},{"colour":"red"}]} "#;
        let read = outer(text, Unknown::Skipped).unwrap();
        assert_eq!((read.kind, read.small, read.signed, read.flag), (Some("a\\n"), Some(255), Some(-9), Some(true)));
        assert!(read.there && read.maybe.is_some());
        assert_eq!(read.list.unwrap(), ["x", "y"]);
        assert_eq!((read.inner.text, read.inner.colour), (Some("t"), Some(Colour::Green)));
        assert_eq!((read.many[0].text, read.many[1].colour), (Some("1"), Some(Colour::Red)));
        assert!(outer(text, Unknown::Refused).is_err(), "it has no key \"more\"");
    }

    #[test]
    fn null_and_absence_leave_a_field_as_it_is() {
        for text in ["{}", r#"{"type":null,"small":null,"there":null,"list":null,"inner":null,"maybe":null}"#] {
            let read = outer(text, Unknown::Refused).unwrap();
            assert!(read.kind.is_none() && read.small.is_none() && !read.there && read.maybe.is_none());
            assert!(read.list.is_none());
        }
        assert!(outer(r#"{"list":[]}"#, Unknown::Refused).unwrap().list.unwrap().is_empty());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for text in [
            r#"{"small":256}"#,
            r#"{"small":-1}"#,
            r#"{"small":"1"}"#,
            r#"{"type":1}"#,
            r#"{"flag":1}"#,
            r#"{"list":["1","2","3"]}"#,
            r#"{"list":[null]}"#,
            r#"{"list":"x"}"#,
            r#"{"inner":[]}"#,
            r#"{"inner":{"colour":"blue"}}"#,
            r#"{"inner":{"text":1}}"#,
            "{} {}",
            "[]",
            "",
        ] {
            assert!(outer(text, Unknown::Skipped).is_err(), "{text}");
        }
    }
}
