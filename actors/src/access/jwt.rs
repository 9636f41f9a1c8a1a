//! Tokens that others sign (JWT, RFC 7519), checked against the keys that the settings name: RS256, ES256 and EdDSA, of
//! an issuer that is known, for an audience that is this service, within their time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
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
    /// Who came with a token and may have something open, with the key that vouches for it.
    came: Mutex<Came>,
}

struct Issuer {
    settings: IssuerSettings,
    keys: Vec<Arc<Key>>,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// What it stands for: what a token has to be, and the key as its set has it.
    vouches: Vouches,
}

/// A key of an issuer: as long as there is the same one, whom it vouched for stays.
#[derive(Clone, Debug, PartialEq)]
struct Vouches {
    issuer: String,
    audience: String,
    scope_claim: String,
    jwk: Value,
}

/// Principals, most of which have gone.
#[derive(Default)]
struct Came {
    all: Vec<(Arc<Key>, Weak<Principal>)>,
    /// How many there may be before it is looked who has gone.
    room: usize,
}

impl Came {
    fn add(&mut self, key: Arc<Key>, principal: Weak<Principal>) {
        if self.all.len() >= self.room {
            self.all.retain(|(_, principal)| principal.strong_count() > 0);
            self.room = 1_024.max(self.all.len() * 2);
        }
        self.all.push((key, principal));
    }
}

impl Default for Issuers {
    fn default() -> Self {
        Self { all: Vec::new(), known: Cache::new(KNOWN), came: Mutex::default() }
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
        let issuers =
            settings.iter().map(|settings| Ok(Issuer { keys: keys(settings)?, settings: settings.clone() }));
        Ok(Self { all: issuers.collect::<std::result::Result<_, String>>()?, ..Self::default() })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// These are known no more, and those are instead: whom no key of theirs would vouch for has ended.
    pub fn yield_to(&self, others: &Self) {
        let came = std::mem::take(&mut self.came.lock().unwrap_or_else(PoisonError::into_inner).all);
        let same = |key: &Key| {
            others.all.iter().flat_map(|issuer| &issuer.keys).find(|other| other.vouches == key.vouches)
        };
        let mut stay = others.came.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, principal) in came {
            match same(&key) {
                Some(key) => stay.add(key.clone(), principal),
                None => drop(principal.upgrade().map(|principal| principal.end())),
            }
        }
    }

    /// Whom a token is of; none where it is no token.
    ///
    /// # Errors
    /// `unauthorized`: nobody who is known here has signed it, or it is not good all the same.
    pub fn principal(&self, token: &str) -> Result<Option<Arc<Principal>>> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(principal) = self.known.get(&hash) {
            return Ok(Some(principal));
        }
        let Ok(header) = decode_header(token) else { return Ok(None) };
        let mut refused = None;
        for issuer in &self.all {
            let fits = |key: &&Arc<Key>| {
                key.algorithm == header.alg
                    && (key.id.is_none() || header.kid.is_none() || key.id == header.kid)
            };
            for key in issuer.keys.iter().filter(fits) {
                match issuer.principal(key, token) {
                    Ok(Some(principal)) => {
                        let principal = Arc::new(principal);
                        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
                        came.add(key.clone(), Arc::downgrade(&principal));
                        self.known.insert(hash, principal.clone());
                        return Ok(Some(principal));
                    }
                    // The same key may be named again, for another issuer or audience.
                    Err(error) => drop(refused.get_or_insert(error)),
                    Ok(None) => {}
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None if self.all.is_empty() => Ok(None),
            None => Err(not_taken("is signed by no key that this service knows")),
        }
    }
}

fn not_taken(problem: &str) -> Error {
    Error::new(Code::Unauthorized, format!("this token {problem}"))
}

impl Issuer {
    /// Whom a token is of that this key has signed; none where it has not.
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
                    ErrorKind::InvalidIssuer => "is of another issuer",
                    ErrorKind::MissingRequiredClaim(_) => {
                        "lacks one of `exp`, `iss`, `aud` and `sub`, or has it in a wrong type"
                    }
                    ErrorKind::InvalidClaimFormat(_) => "has a claim of a wrong type",
                    _ => return Ok(None),
                };
                return Err(not_taken(problem));
            }
        };
        let wrong = |what: &str| not_taken(&format!("has a `{what}` of a wrong type"));
        // The library takes a list of issuers too, which RFC 7519 (4.1.1) does not know.
        claims.get("iss").and_then(Value::as_str).ok_or_else(|| wrong("iss"))?;
        let subject = claims.get("sub").and_then(Value::as_str).ok_or_else(|| wrong("sub"))?;
        if subject.is_empty() {
            return Err(not_taken("has an empty `sub`, which names nobody"));
        }
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
fn keys(settings: &IssuerSettings) -> std::result::Result<Vec<Arc<Key>>, String> {
    let file = &settings.keys;
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
    let keys: Vec<Arc<Key>> = listed.iter().filter_map(|jwk| key(jwk, settings)).map(Arc::new).collect();
    if keys.is_empty() {
        return Err(format!("{place} has no key for RS256, ES256 or EdDSA"));
    }
    if keys.len() < listed.len() {
        tracing::warn!(file = %place, used = keys.len(), of = listed.len(), "some keys of a set are not used");
    }
    Ok(keys)
}

fn key(value: &Value, settings: &IssuerSettings) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let is_other = |named: jsonwebtoken::jwk::KeyAlgorithm| named.to_string() != format!("{algorithm:?}");
    let signs = jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let verifies = |operations: &Vec<KeyOperations>| operations.contains(&KeyOperations::Verify);
    if !signs
        || !jwk.common.key_operations.as_ref().is_none_or(verifies)
        || jwk.common.key_algorithm.is_some_and(is_other)
    {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let vouches = Vouches {
        issuer: settings.issuer.clone(),
        audience: settings.audience.clone(),
        scope_claim: settings.scope_claim.clone(),
        jwk: value.clone(),
    };
    Some(Key { id: jwk.common.key_id, algorithm, key, vouches })
}

#[cfg(test)]
mod tests;
