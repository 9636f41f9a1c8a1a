//! The secrets of one execution.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use reqwest::header::HeaderValue;
use sha2::{Digest, Sha256};

use super::redactor::Redactor;
use super::secret::Secret;
use crate::execution::{Failure, Outcome};
use crate::spec::secrets::filled;

/// The code of an outcome where a secret could not be had.
pub const UNAVAILABLE: &str = "secret_unavailable";

/// What a definition asked for by name, with its values. Two are equal where they give the same.
#[derive(Clone, Default)]
pub struct Granted(Option<Arc<Inner>>);

struct Inner {
    /// By the name that the definition uses.
    values: BTreeMap<String, Arc<Secret>>,
    redactor: Redactor,
    fingerprint: [u8; 32],
}

impl fmt::Debug for Granted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.as_deref().map(|inner| inner.values.keys().collect::<Vec<_>>());
        formatter.debug_tuple("Granted").field(&names.unwrap_or_default()).finish()
    }
}

impl PartialEq for Granted {
    fn eq(&self, other: &Self) -> bool {
        let fingerprint = |granted: &Self| granted.0.as_deref().map(|inner| inner.fingerprint);
        fingerprint(self) == fingerprint(other)
    }
}

impl Eq for Granted {}

impl Granted {
    /// Of these: the name that the definition uses, that of the configuration, and the value.
    ///
    /// # Errors
    /// `secret_unavailable`: they are too large to be looked for in what comes out.
    pub fn new(given: Vec<(String, String, Arc<Secret>)>) -> Result<Self, Outcome> {
        let too_large =
            |_| Outcome::failed(UNAVAILABLE, "the definition's secrets are larger than can be redacted");
        let named = given.iter().map(|(_, name, secret)| (name.as_str(), secret.expose()));
        let Some(redactor) = Redactor::new(named).map_err(too_large)? else { return Ok(Self::default()) };
        let mut hash = Sha256::new();
        for (used, name, secret) in &given {
            for part in [used, name, secret.expose()] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        let values = given.into_iter().map(|(used, _, secret)| (used, secret)).collect();
        Ok(Self(Some(Arc::new(Inner { values, redactor, fingerprint: hash.finalize().into() }))))
    }

    /// The variables of a program's environment.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let values = self.0.iter().flat_map(|inner| &inner.values);
        values.map(|(name, secret)| (name.as_str(), secret.expose()))
    }

    /// These headers, with the values in the places that name them.
    ///
    /// # Errors
    /// `secret_unavailable`: a value cannot stand in a header.
    pub fn headers<'h>(
        &self,
        headers: &'h BTreeMap<String, String>,
    ) -> Result<Cow<'h, BTreeMap<String, String>>, Outcome> {
        let Some(inner) = self.0.as_deref() else { return Ok(Cow::Borrowed(headers)) };
        let value = |name: &str| inner.values.get(name).map(|secret| secret.expose()).unwrap_or_default();
        let fill = |(name, text): (&String, &String)| {
            let text = filled(text, value);
            if HeaderValue::from_str(&text).is_err() {
                let message = format!("a secret has characters that cannot stand in the header {name:?}");
                return Err(Outcome::failed(UNAVAILABLE, message));
            }
            Ok((name.clone(), text))
        };
        headers.iter().map(fill).collect::<Result<_, _>>().map(Cow::Owned)
    }

    /// What takes the values out of what comes out; none without secrets.
    pub fn redactor(&self) -> Option<&Redactor> {
        self.0.as_deref().map(|inner| &inner.redactor)
    }

    /// An outcome without them.
    pub fn redacted(&self, outcome: Outcome) -> Outcome {
        let Some(redactor) = self.redactor() else { return outcome };
        let result = match outcome.result {
            Ok(output) => Ok(redactor.document(&output).into()),
            Err(Failure { code, message }) => {
                Err(Failure { code, message: redactor.cut(&message).into_owned() })
            }
        };
        Outcome { result, ..outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(value: &str) -> Granted {
        let secret = Arc::new(Secret::read(value.as_bytes(), false).expect("a value"));
        Granted::new(vec![("TOKEN".into(), "github_token".into(), secret)]).expect("granted")
    }

    #[test]
    fn what_is_granted_is_told_apart_by_its_value_and_shows_none() {
        assert_eq!(granted("canary-1"), granted("canary-1"));
        assert_ne!(granted("canary-1"), granted("canary-2"));
        assert_ne!(granted("canary-1"), Granted::default());
        assert_eq!(format!("{:?}", granted("canary-1")), "Granted([\"TOKEN\"])");
    }

    #[test]
    fn a_value_goes_into_a_header_where_it_can_stand_there() {
        let headers = BTreeMap::from([("authorization".into(), "Bearer {{secrets.TOKEN}}".into())]);
        let told = |value| granted(value).headers(&headers).map(|headers| headers["authorization"].clone());
        assert_eq!(told("canary-1").expect("a header"), "Bearer canary-1");
        let failure = told("canary-1\nx: y").expect_err("two lines").result.expect_err("a failure");
        assert_eq!(failure.code, UNAVAILABLE);
        assert!(!failure.message.contains("canary"), "{}", failure.message);
        assert_eq!(Granted::default().headers(&headers).expect("as they are").as_ref(), &headers);
    }

    #[test]
    fn an_outcome_tells_the_name_instead() {
        let granted = granted("canary-1");
        let output = granted.redacted(Outcome::succeeded(r#"{"a":"canary-1"}"#.into()));
        assert_eq!(output.result.expect("an output").as_ref(), r#"{"a":"[redacted:github_token]"}"#);
        let failed = granted.redacted(Outcome::failed("exit_status", "it said canary-1, cana"));
        let failure = failed.result.expect_err("a failure");
        assert_eq!(failure.message, "it said [redacted:github_token], [redacted:github_token]");
    }
}
