//! An API key: what is asked for, what is shown once, and what is kept, which is a hash.
//!
//! A key reads `oe_<id>_<secret>`: the id is public and names it, the secret is 256 random bits. With so many of them a
//! plain SHA-256 is as good as a slow hash, whose purpose is to make guessable secrets dear to guess.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Grant, Ids, Scope, Scopes};
use crate::error::{Error, Result};
use crate::execution::now_ms;
use crate::json;

/// What every key begins with, so that a scanner for leaked secrets knows one.
const PREFIX: &str = "oe_";

/// How long a name may be, in characters.
const MAX_NAME: usize = 100;

/// The public part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

impl KeyId {
    /// One for a test.
    #[cfg(test)]
    pub fn of(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl FromStr for KeyId {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let parsed = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        parsed.map(Self).ok_or("a key's id is 16 hexadecimal digits")
    }
}

/// The hash of a secret, in hexadecimal digits.
#[derive(Clone)]
pub struct Hash(String);

impl Hash {
    fn of(secret: &str) -> Self {
        Self(format!("{:x}", Sha256::digest(secret)))
    }

    /// Reads one that was kept.
    pub fn parse(hex: &str) -> Option<Self> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (hex.len() == 64 && hex.bytes().all(is_digit)).then(|| Self(hex.to_owned()))
    }

    /// Whether this is the hash of that secret.
    pub fn is_of(&self, secret: &str) -> bool {
        self.0.as_bytes().ct_eq(Self::of(secret).0.as_bytes()).into()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(hash)")
    }
}

/// Takes what a caller gave apart: the id of its key, and the secret. None where it is no key.
pub fn apart(token: &str) -> Option<(KeyId, &str)> {
    let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
    Some((id.parse().ok()?, secret))
}

/// A key that is asked for.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub grant: Grant,
}

/// A field of a new key, where it is given.
fn taken<T: DeserializeOwned>(given: &mut Map<String, Value>, field: &str) -> Result<Option<T>> {
    let Some(value) = given.remove(field).filter(|value| !value.is_null()) else { return Ok(None) };
    let wrong = |error: serde_json::Error| Error::invalid(format!("`{field}`: {error}")).at(field);
    serde_json::from_value(value).map(Some).map_err(wrong)
}

impl NewKey {
    /// Reads the body of a request: `name`, `scopes`, and where they are given `ids` (patterns), `expires_ms`,
    /// `requests_per_second` and `max_open`.
    ///
    /// # Errors
    /// `invalid`, naming the field.
    pub fn parse(body: &str) -> Result<Self> {
        let Value::Object(mut given) = json::parse(body)? else {
            return Err(Error::invalid("the key is not an object"));
        };
        let missing = |field: &str| Error::invalid(format!("`{field}` is missing")).at(field);
        let name: String = taken(&mut given, "name")?.ok_or_else(|| missing("name"))?;
        let scopes: Vec<Scope> = taken(&mut given, "scopes")?.ok_or_else(|| missing("scopes"))?;
        let ids: Option<Vec<String>> = taken(&mut given, "ids")?;
        let expires_ms: Option<u64> = taken(&mut given, "expires_ms")?;
        let requests_per_second: Option<NonZeroU32> = taken(&mut given, "requests_per_second")?;
        let max_open: Option<NonZeroU32> = taken(&mut given, "max_open")?;
        if let Some(other) = given.keys().next() {
            return Err(Error::invalid(format!("unknown field `{}`", json::shown(other))).at(other));
        }
        let name = name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            let message = format!("`name` has not 1 to {MAX_NAME} characters, or one that controls");
            return Err(Error::invalid(message).at("name"));
        }
        let scopes: Scopes = scopes.into_iter().collect();
        if scopes.is_empty() {
            return Err(Error::invalid("`scopes` is empty").at("scopes"));
        }
        if expires_ms.is_some_and(|at| at <= now_ms()) {
            return Err(Error::invalid("`expires_ms` is not in the future").at("expires_ms"));
        }
        let grant = Grant {
            scopes,
            ids: ids.as_deref().map(Ids::matching).transpose()?.unwrap_or_default(),
            expires_ms,
            requests_per_second,
            max_open: max_open.map(|open| open.get() as usize),
        };
        Ok(Self { name: name.to_owned(), grant })
    }

    /// Makes it: what is shown once, and what is kept.
    ///
    /// # Errors
    /// `unavailable` where the machine gives no random bits.
    pub fn issue(self) -> Result<(String, About)> {
        let mut bits = [0; 40];
        getrandom::fill(&mut bits)
            .map_err(|error| Error::unavailable(format!("this machine gives no random bits: {error}")))?;
        let (id, secret) = bits.split_at(8);
        let id = KeyId(id.iter().fold(0, |id, byte| id << 8 | u64::from(*byte)));
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let about = About {
            id,
            name: self.name,
            hash: Hash::of(&secret),
            grant: self.grant,
            created_ms: now_ms(),
            revoked_ms: None,
        };
        Ok((format!("{PREFIX}{id}_{secret}"), about))
    }
}

/// What is kept of a key.
#[derive(Clone, Debug)]
pub struct About {
    /// Its public part.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// Of its secret.
    pub hash: Hash,
    /// What it may do.
    pub grant: Grant,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
    /// When it was revoked.
    pub revoked_ms: Option<u64>,
}

impl About {
    /// How the audit log calls it.
    pub fn subject(&self) -> String {
        format!("key/{}", self.id)
    }

    /// What the audit log has of it besides.
    pub fn detail(&self) -> Value {
        let scopes: Vec<_> = self.grant.scopes.given().collect();
        let ids: Option<Vec<&str>> = self.grant.ids.patterns().map(Iterator::collect);
        json!({ "name": self.name, "scopes": scopes, "ids": ids })
    }

    /// All but the hash. `state` is `active`, `expired` or `revoked`.
    pub fn to_json(&self) -> Value {
        let grant = &self.grant;
        let state = match (self.revoked_ms, grant.expires_ms) {
            (Some(_), _) => "revoked",
            (None, Some(at)) if at <= now_ms() => "expired",
            _ => "active",
        };
        let mut about = json!({
            "id": self.id.to_string(), "name": self.name, "state": state,
            "scopes": grant.scopes.given().collect::<Vec<_>>(), "created_ms": self.created_ms,
        });
        if let Some(patterns) = grant.ids.patterns() {
            about["ids"] = patterns.collect();
        }
        let numbers = [
            ("expires_ms", grant.expires_ms),
            ("revoked_ms", self.revoked_ms),
            ("requests_per_second", grant.requests_per_second.map(|rate| rate.get().into())),
            ("max_open", grant.max_open.map(|open| open as u64)),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                about[name] = number.into();
            }
        }
        about
    }
}

/// A key that was just made.
#[derive(Clone)]
pub struct Issued {
    /// The key itself, which is kept nowhere.
    pub key: String,
    /// What is kept of it.
    pub about: About,
}

impl fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key itself.
        self.about.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(body: &str) -> (String, About) {
        NewKey::parse(body).expect(body).issue().expect("random bits")
    }

    #[test]
    fn a_key_is_known_by_its_id_and_good_by_its_secret() {
        let (key, about) = issued(r#"{"name":" ci ","scopes":["read","execute"]}"#);
        let (id, secret) = apart(&key).expect("a key");
        assert_eq!((id, about.name.as_str(), key.len()), (about.id, "ci", 3 + 16 + 1 + 64));
        assert!(about.hash.is_of(secret) && !about.hash.is_of(&secret[1..]) && !about.hash.is_of(""));
        let again = Hash::parse(&about.hash.to_string()).expect("a hash");
        assert!(again.is_of(secret));
        let (other, _) = issued(r#"{"name":"ci","scopes":["read"]}"#);
        assert_ne!(key, other);
        let shown = format!("{about:?} {}", about.to_json());
        assert!(!shown.contains(secret) && !shown.contains(&about.hash.to_string()), "{shown}");
    }

    #[test]
    fn what_is_no_key_is_none() {
        for bad in [
            "",
            "oe_",
            "oe_1_2",
            "oe_0123456789abcdeF_x",
            "oe_0123456789abcdef",
            "xx_0123456789abcdef_x",
            "oe_+123456789abcdef_x",
        ] {
            assert!(apart(bad).is_none(), "{bad}");
        }
        assert!(Hash::parse(&"é".repeat(32)).is_none() && Hash::parse("00").is_none());
    }

    #[test]
    fn what_a_key_may_do_is_read_and_shown() {
        let far = now_ms() + 1_000_000;
        let body = format!(
            r#"{{"name":"n","scopes":["admin"],"ids":["a*"],"expires_ms":{far},"requests_per_second":9,"max_open":2}}"#
        );
        let (_, about) = issued(&body);
        let shown = about.to_json();
        assert_eq!(shown["scopes"], json!(["admin"]));
        assert_eq!((&shown["ids"], &shown["expires_ms"]), (&json!(["a*"]), &json!(far)));
        assert_eq!((&shown["requests_per_second"], &shown["max_open"]), (&json!(9), &json!(2)));
        assert_eq!(shown["state"], "active");
        for (bad, part) in [
            (r#"{"scopes":["read"]}"#, "name"),
            (r#"{"name":"n"}"#, "scopes"),
            (r#"{"name":"n","scopes":[]}"#, "`scopes` is empty"),
            (r#"{"name":"n","scopes":["root"]}"#, "root"),
            (r#"{"name":"","scopes":["read"]}"#, "`name`"),
            (r#"{"name":"a\nb","scopes":["read"]}"#, "`name`"),
            (r#"{"name":"n","scopes":["read"],"ids":[]}"#, "`ids`"),
            (r#"{"name":"n","scopes":["read"],"expires_ms":1}"#, "`expires_ms`"),
            (r#"{"name":"n","scopes":["read"],"max_open":0}"#, "nonzero"),
            (r#"{"name":"n","scopes":["read"],"more":0}"#, "more"),
        ] {
            let error = NewKey::parse(bad).expect_err(bad).to_string();
            assert!(error.contains(part), "{bad}: {error}");
            assert!(NewKey::parse(bad).expect_err(bad).details().is_some(), "{bad}: its field is told");
        }
    }
}
