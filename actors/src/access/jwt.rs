//! Tokens that others sign (JWT, RFC 7519), checked against the keys that the settings name: RS256, ES256 and EdDSA, of
//! an issuer that is known, for an audience that is this service, within their time.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Grant, Principal, Scope, Scopes};
use crate::error::{Code, Error, Result};
use crate::execution::Client;
use crate::settings::IssuerSettings;

/// How far the clocks of an issuer and of this machine may be apart, in seconds.
const LEEWAY: u64 = 30;

/// How many tokens are known without another look at their signature.
const KNOWN: usize = 10_000;

/// How large a set of keys may be, in bytes.
const MAX_KEYS_BYTES: u64 = 1 << 20;

/// Those whose tokens are taken.
pub struct Issuers {
    all: Vec<Issuer>,
    /// By the hash of a token, whom it is of.
    known: Cache<[u8; 32], Arc<Principal>>,
}

struct Issuer {
    settings: IssuerSettings,
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Default for Issuers {
    fn default() -> Self {
        Self { all: Vec::new(), known: Cache::new(KNOWN) }
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.all.iter().map(|issuer| &issuer.settings.issuer)).finish()
    }
}

impl Issuers {
    /// Reads the key sets of these.
    ///
    /// # Errors
    /// A sentence that names a file which cannot be read, or has no key that is taken.
    pub fn load(settings: &[IssuerSettings]) -> std::result::Result<Self, String> {
        let issuers = settings
            .iter()
            .map(|settings| Ok(Issuer { keys: keys(&settings.keys)?, settings: settings.clone() }));
        Ok(Self { all: issuers.collect::<std::result::Result<_, String>>()?, ..Self::default() })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whom a token is of; none where it is no token, or of nobody known here.
    ///
    /// # Errors
    /// `unauthorized`: it is signed by one of these, and not good all the same.
    pub fn principal(&self, token: &str) -> Result<Option<Arc<Principal>>> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(principal) = self.known.get(&hash) {
            return Ok(Some(principal));
        }
        let Ok(header) = decode_header(token) else { return Ok(None) };
        for issuer in &self.all {
            let fits = |key: &&Key| {
                key.algorithm == header.alg
                    && (key.id.is_none() || header.kid.is_none() || key.id == header.kid)
            };
            for key in issuer.keys.iter().filter(fits) {
                if let Some(principal) = issuer.principal(key, token)? {
                    let principal = Arc::new(principal);
                    self.known.insert(hash, principal.clone());
                    return Ok(Some(principal));
                }
            }
        }
        Ok(None)
    }
}

impl Issuer {
    /// Whom a token is of that this key has signed.
    fn principal(&self, key: &Key, token: &str) -> Result<Option<Principal>> {
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = match decode::<Map<String, Value>>(token, &key.key, &validation) {
            Ok(data) => data.claims,
            // The signature is checked before all else: these are signed.
            Err(error) => {
                let problem = match error.kind() {
                    ErrorKind::ExpiredSignature => "has expired",
                    ErrorKind::ImmatureSignature => "is not good yet",
                    ErrorKind::InvalidAudience => "is for another audience",
                    ErrorKind::MissingRequiredClaim(_) => "lacks one of `exp`, `iss`, `aud` and `sub`",
                    // Another issuer may use the same key.
                    _ => return Ok(None),
                };
                return Err(Error::new(Code::Unauthorized, format!("this token {problem}")));
            }
        };
        let wrong =
            |what: &str| Error::new(Code::Unauthorized, format!("this token has a `{what}` of a wrong type"));
        let subject = claims.get("sub").and_then(Value::as_str).ok_or_else(|| wrong("sub"))?;
        let expires = claims.get("exp").and_then(Value::as_f64).ok_or_else(|| wrong("exp"))? as u64;
        let hash = Sha256::digest(format!("{}\0{subject}", self.settings.issuer));
        let number = hash.iter().take(16).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
        let grant = Grant {
            scopes: scopes(claims.get(&self.settings.scope_claim)),
            expires_ms: Some(expires.saturating_add(LEEWAY).saturating_mul(1_000)),
            ..Grant::default()
        };
        Ok(Some(Principal::new(Some(Client::Subject(number)), grant).called(subject)))
    }
}

/// Scopes as a text with spaces between them (RFC 8693, 4.2), or as a list. What is no scope here is one elsewhere.
fn scopes(claim: Option<&Value>) -> Scopes {
    match claim {
        Some(Value::String(text)) => text.split(' ').filter_map(Scope::named).collect(),
        Some(Value::Array(list)) => list.iter().filter_map(|name| Scope::named(name.as_str()?)).collect(),
        _ => Scopes::default(),
    }
}

/// The keys of a set (JWKS, RFC 7517) that can check what is taken here.
fn keys(file: &Path) -> std::result::Result<Vec<Key>, String> {
    let place = file.display();
    let size =
        std::fs::metadata(file).map_err(|error| format!("the keys {place} cannot be read: {error}"))?.len();
    if size > MAX_KEYS_BYTES {
        return Err(format!("the keys {place} are larger than {MAX_KEYS_BYTES} bytes"));
    }
    let text = std::fs::read(file).map_err(|error| format!("the keys {place} cannot be read: {error}"))?;
    // One by one: a set may hold keys of kinds that the library does not know.
    let set: Value =
        serde_json::from_slice(&text).map_err(|error| format!("the keys {place} are no JSON: {error}"))?;
    let listed =
        set["keys"].as_array().ok_or_else(|| format!("{place} is no set of keys: it has no list `keys`"))?;
    let keys: Vec<Key> = listed.iter().filter_map(key).collect();
    if keys.is_empty() {
        return Err(format!("{place} has no key for RS256, ES256 or EdDSA"));
    }
    if keys.len() < listed.len() {
        tracing::warn!(file = %place, used = keys.len(), of = listed.len(), "some keys of a set are not used");
    }
    Ok(keys)
}

fn key(value: &Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let is_other = |named: jsonwebtoken::jwk::KeyAlgorithm| named.to_string() != format!("{algorithm:?}");
    let signs = jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    if !signs || jwk.common.key_algorithm.is_some_and(is_other) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key { id: jwk.common.key_id, algorithm, key })
}

#[cfg(test)]
mod tests;
