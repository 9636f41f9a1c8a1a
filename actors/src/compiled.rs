//! A definition made ready to run: its JSON as it is answered, its spec, its compiled schemas, its defaults.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::artifacts::Pin;
use crate::definition::{Definition, Kind};
use crate::error::{Code, Error, Result};
use crate::execution::{Input, Runtime};
use crate::json::{self, RawObject};
use crate::spec::Spec;

/// A definition with the number of its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// What is registered.
    pub definition: Definition,
    /// 1 when created, one more with each write.
    pub number: u64,
    /// When the definition was created, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When this revision was written, in milliseconds since the epoch.
    pub updated_ms: u64,
    /// What its source was then; none without a source, or where it could not be had.
    pub pin: Option<Pin>,
}

impl Revision {
    /// The strong ETag of this revision, quotes and all.
    pub fn etag(&self) -> String {
        etag(self.number, self.created_ms)
    }
}

/// The strong ETag of the revision with this number, of a definition that was created then.
pub fn etag(number: u64, created_ms: u64) -> String {
    format!("\"{number}-{created_ms:x}\"")
}

/// Whether the value of an If-None-Match header means this ETag, which may have been weakened on its way (RFC 9110, 13.1.2).
pub fn means_weakly(etags: &str, etag: &str) -> bool {
    any(etags, |named| named.strip_prefix("W/").unwrap_or(named) == etag)
}

/// Whether the value of an If-Match header means this ETag (RFC 9110, 13.1.1).
pub fn means(etags: &str, etag: &str) -> bool {
    any(etags, |named| named == etag)
}

/// Whether the list of a header is all ETags, or has one of this kind.
fn any(etags: &str, is_meant: impl Fn(&str) -> bool) -> bool {
    etags.trim() == "*" || etags.split(',').any(|named| is_meant(named.trim()))
}

/// A revision made ready: what the registry's cache holds, shared by all that run it.
#[derive(Debug)]
pub struct Compiled {
    /// Tool or function.
    pub kind: Kind,
    /// Its exact id.
    pub id: String,
    /// The strong ETag of this revision, quotes and all.
    pub etag: String,
    /// The number of this revision.
    pub number: u64,
    /// When the definition was created, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When this revision was written, in milliseconds since the epoch.
    pub updated_ms: u64,
    /// What no other revision has: a hash of all of it.
    pub fingerprint: Arc<str>,
    /// The definition's JSON text.
    pub json: Bytes,
    /// How it runs.
    pub spec: Spec,
    /// What its source was when it was registered, or, where it could not be had then, at its first run.
    pub pin: OnceLock<Pin>,
    defaults: RawObject,
}

impl Compiled {
    /// Compiles a revision.
    ///
    /// # Errors
    /// `invalid` where its fields are no JSON objects.
    pub fn new(revision: &Revision) -> Result<Arc<Self>> {
        let definition = &revision.definition;
        let metadata = json::parse(&definition.metadata)?;
        let no_object = || Error::invalid("the metadata is no object");
        let json = definition.to_json();
        Ok(Arc::new(Self {
            kind: definition.kind,
            id: definition.id.clone(),
            etag: revision.etag(),
            number: revision.number,
            created_ms: revision.created_ms,
            updated_ms: revision.updated_ms,
            fingerprint: fingerprint(revision, &json),
            json: json.into(),
            // What another version let in can still be read, replaced and removed; it only does not run.
            spec: Spec::parse(metadata.as_object().ok_or_else(no_object)?).unwrap_or_else(Spec::unreadable),
            pin: revision.pin.clone().map_or_else(OnceLock::new, OnceLock::from),
            defaults: json::members(&definition.default_params)?,
        }))
    }

    /// What is registered.
    ///
    /// # Errors
    /// `invalid` where its text is no definition; one that was compiled is.
    pub fn definition(&self) -> Result<Definition> {
        Definition::from_stored(self.kind, &String::from_utf8_lossy(&self.json))
    }

    /// What the cache counts this as, in bytes: its text, and about as much again for each compiled form.
    pub fn weight(&self) -> u64 {
        self.json.len() as u64 * 4 + 1_024
    }

    /// How it runs.
    ///
    /// # Errors
    /// `invalid` without a runtime, `unavailable` with a promise that this version cannot keep.
    pub fn runtime(&self) -> Result<Runtime> {
        if let Some(unmet) = &self.spec.unmet {
            return Err(Error::unavailable(unmet.clone()));
        }
        self.spec.runtime.ok_or_else(|| {
            let why = self.unsupported();
            let why = why.as_deref().unwrap_or("its metadata names none, and no protocol or source");
            Error::invalid(format!("this {} has no runtime: {why}", self.kind.name()))
        })
    }

    /// Why an operation of an OpenAPI document cannot run, as its metadata tells.
    fn unsupported(&self) -> Option<String> {
        let definition: Value = serde_json::from_slice(&self.json).ok()?;
        let why = definition[self.kind.field("metadata")]["unsupported"].as_str()?;
        Some(json::shown(why))
    }

    /// The input of one execution: the defaults overlaid by what the client gave, key by key, and checked.
    ///
    /// # Errors
    /// `unprocessable`, the message beginning with the place: `/value: …`.
    pub fn input(&self, given: RawObject) -> Result<Input> {
        let merged: std::collections::BTreeMap<_, _> =
            self.defaults.iter().filter(|(key, _)| !given.contains_key(*key)).chain(&given).collect();
        let text = serde_json::to_string(&merged).map_err(|error| Error::invalid(error.to_string()))?;
        // Strictly: over REST what is inside was not read before.
        let value = json::parse(&text)?;
        let misfit = self.spec.input.as_ref().and_then(|schema| schema.check(&value).err());
        match misfit.or_else(|| self.spec.misfit(&value)) {
            Some(misfit) => Err(Error::new(Code::Unprocessable, misfit.to_string()).at(misfit.place)),
            None => Ok(Input { text: json::compact(&text) }),
        }
    }
}

fn fingerprint(revision: &Revision, json: &str) -> Arc<str> {
    let mut hash = Sha256::new();
    for part in [
        revision.definition.kind.name(),
        &revision.etag(),
        revision.pin.as_ref().map_or("", Pin::as_str),
        json,
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(metadata: &str, defaults: &str) -> Arc<Compiled> {
        let body =
            format!(r#"{{"tool_id":"t","tool_metadata":{metadata},"tool_default_params":{defaults}}}"#);
        let definition = Definition::parse(Kind::Tool, &body).expect("valid");
        Compiled::new(&Revision { definition, number: 3, created_ms: 255, updated_ms: 256, pin: None })
            .expect("compiles")
    }

    #[test]
    fn defaults_are_overlaid_key_by_key_with_their_text() {
        let tool = compiled("{}", r#"{"a":1.50,"b":{"x":1}}"#);
        let input =
            tool.input(json::members(r#"{"b": {"y": 2}, "c": 18446744073709551615}"#).expect("valid"));
        assert_eq!(input.expect("fits").text, r#"{"a":1.50,"b":{"y":2},"c":18446744073709551615}"#);
        assert_eq!(tool.etag, "\"3-ff\"");
    }

    #[test]
    fn a_bad_input_names_the_place() {
        let tool = compiled(r#"{"input_schema":{"properties":{"value":{"type":"integer"}}}}"#, "{}");
        let error = tool.input(json::members(r#"{"value":"x"}"#).expect("valid")).expect_err("wrong type");
        assert!(error.to_string().starts_with("/value: "), "{error}");
        assert_eq!(error.details().expect("a place")["field"], "/value");

        let tool = compiled(r#"{"input_schema":{"properties":{"a: b":{"type":"integer"}}}}"#, "{}");
        let error = tool.input(json::members(r#"{"a: b":"x"}"#).expect("valid")).expect_err("wrong type");
        assert_eq!(error.details().expect("a place")["field"], "/a: b");

        let tool = compiled(r#"{"args":["{{name}}"]}"#, "{}");
        let error = tool.input(RawObject::new()).expect_err("no name");
        assert!(error.to_string().starts_with("/name: "), "{error}");
    }

    #[test]
    fn what_is_checked_is_what_runs() {
        let tool = compiled(r#"{"input_schema":{"properties":{"value":{"type":"integer"}}}}"#, "{}");
        for input in
            [r#"{"value":{"$serde_json::private::RawValue":"5"}}"#, r#"{"value":5,"b":{"a":1,"a":2}}"#]
        {
            let error = tool.input(json::members(input).expect("valid")).expect_err(input);
            assert_eq!(error.code(), Code::Invalid, "{error}");
        }
    }

    #[test]
    fn a_definition_that_cannot_run_says_why() {
        let code = |metadata| compiled(metadata, "{}").runtime().map_err(|error| error.code());
        assert_eq!(code("{}"), Err(Code::Invalid));
        assert_eq!(code(r#"{"runtime":"mcp","network":false}"#), Err(Code::Unavailable));
        assert_eq!(code(r#"{"runtime":"binary","network":false}"#), Ok(Runtime::Binary));
        assert_eq!(code(r#"{"runtime":"binary","secrets":["token"]}"#), Ok(Runtime::Binary));
        assert_eq!(code(r#"{"runtime":"binary","limits":{"cpu_ms":1}}"#), Ok(Runtime::Binary));
        assert_eq!(code(r#"{"runtime":"binary"}"#), Ok(Runtime::Binary));
    }
}
