//! The audit log: who did what, when and from where. Its entries are a chain: the hash of each is made of the hash
//! before it and of the entry's own text, so that none can be changed, left out, moved or put in unseen. Pure.
//!
//! `event` is what happened, `chain` checks a run of entries, `trail` gathers what is to be recorded, `refusals` keeps a stranger from filling
//! the disk, `writer` is the actor that writes, `verify` reads the whole chain, `offline` does without a service.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

mod chain;
mod event;
mod offline;
mod refusals;
mod retention;
mod trail;
mod verify;
mod writer;

pub use chain::{Broken, Problem, Verifier};
pub use event::{Action, Detail, Door, Event, Origin};
pub use offline::Offline;
pub(crate) use offline::{append, offline_origin};
pub use retention::Old;
pub use trail::Trail;
pub(crate) use verify::verify;
pub use verify::{Noted, Report};
pub use writer::{Args, AuditActor, Msg, Page, PageRequest, Ref};

/// What stands before the first entry instead of a hash.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its place in the chain; the first is 1.
    pub sequence: u64,
    /// When it happened, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Who.
    pub principal: String,
    /// From which address; empty where there is none.
    pub address: String,
    /// By which way.
    pub door: String,
    /// What was done or asked for.
    pub action: String,
    /// To what.
    pub subject: String,
    /// What came of it.
    pub result: String,
    /// What else is to be known.
    pub detail: Map<String, Value>,
}

impl Entry {
    /// Reads the text of one.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

fn write_object(text: &mut String, object: &Map<String, Value>) {
    text.push('{');
    for (place, (name, value)) in object.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        write_string(text, name);
        text.push(':');
        write_value(text, value);
    }
    text.push('}');
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::String(string) => write_string(text, string),
        Value::Object(object) => write_object(text, object),
        Value::Array(list) => {
            text.push('[');
            for (place, value) in list.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write_value(text, value);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

/// All but printable ASCII is escaped, which JSON need not do.
fn write_string(text: &mut String, string: &str) {
    text.push('"');
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if string.as_bytes().iter().all(is_plain) {
        text.push_str(string);
    } else {
        string.chars().for_each(|character| write_escaped(text, character));
    }
    text.push('"');
}

fn write_escaped(text: &mut String, character: char) {
    match character {
        '"' | '\\' => text.extend(['\\', character]),
        ' '..='~' => text.push(character),
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(text, "\\u{unit:04x}").expect("a string takes every text");
            }
        }
    }
}

/// A place of the chain, and the hash there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many entries there are up to here.
    pub sequence: u64,
    /// The hash of the last of them, in hexadecimal digits.
    pub hash: String,
}

impl Head {
    /// Before the first entry.
    pub fn genesis() -> Self {
        Self { sequence: 0, hash: GENESIS.to_owned() }
    }
}

/// An entry as it is kept: at its place, with its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its place.
    pub sequence: u64,
    /// Its text.
    pub text: String,
    /// The hash of the one before it and of this text, in hexadecimal digits.
    pub hash: String,
}

impl Link {
    /// The next one after this head.
    pub fn after(head: &Head, event: &Event) -> Self {
        let sequence = head.sequence + 1;
        let text = event.text(sequence);
        Self { sequence, hash: hash(&head.hash, &text), text }
    }

    /// The head that it makes.
    pub fn head(&self) -> Head {
        Head { sequence: self.sequence, hash: self.hash.clone() }
    }

    /// Its text with the hash as its last field: a line of an export.
    pub fn line(&self) -> String {
        let body = self.text.strip_suffix('}').unwrap_or(&self.text);
        let mut line = format!(r#"{body},"hash":"#);
        write_string(&mut line, &self.hash);
        line.push('}');
        line
    }
}

/// The hash of an entry: SHA-256 of the hash before it, as its 64 hexadecimal digits, and of its text.
pub fn hash(before: &str, text: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(text);
    format!("{:x}", hash.finalize())
}

/// Whether this is written as a hash is.
pub fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    /// An event of a test.
    pub fn event(subject: &str) -> Event {
        let origin = Arc::new(Origin::stranger("127.0.0.1".parse().expect("an address"), Door::Rest));
        Event { at_ms: 1_000, ..Event::done(origin, Action::DefinitionCreate, subject, json!({})) }
    }

    #[test]
    fn the_text_of_an_entry_has_its_fields_in_their_order() {
        let entry = Event { detail: json!({ "revision": 1 }).into(), ..event("tool/a") };
        let text = concat!(
            r#"{"sequence":7,"at_ms":1000,"principal":"127.0.0.1","address":"127.0.0.1","door":"rest","#,
            r#""action":"definition.create","subject":"tool/a","result":"ok","detail":{"revision":1}}"#
        );
        assert_eq!(entry.text(7), text);
        let read = Entry::parse(text).expect("an entry");
        assert_eq!(
            (read.sequence, read.subject.as_str(), &read.detail["revision"]),
            (7, "tool/a", &json!(1))
        );
    }

    #[test]
    fn no_text_can_look_like_another_line_or_field() {
        let forged = "a\n{\"sequence\":8}\r\u{2028}\u{85}\u{1b}[2K\u{202e}\u{7f}é😀\\\",\"result\":\"x";
        let text = Event { detail: json!({ forged: [forged, 1, null] }).into(), ..event(forged) }.text(1);
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        let read = Entry::parse(&text).expect("JSON");
        assert_eq!((read.subject.as_str(), read.result.as_str(), read.sequence), (forged, "ok", 1));
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["detail"][forged][0], forged);
    }

    #[test]
    fn a_line_of_an_export_is_the_text_and_its_hash() {
        let link = Link::after(&Head::genesis(), &event("tool/a"));
        let line = link.line();
        let cut = format!(r#","hash":"{}"}}"#, link.hash);
        let text = format!("{}}}", line.strip_suffix(&cut).expect("the hash is the last field"));
        assert_eq!(hash(GENESIS, &text), link.hash);
        assert!(is_hash(&link.hash) && is_hash(GENESIS) && !is_hash("x") && !is_hash(&"G".repeat(64)));
    }
}
