use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

use super::*;
use crate::execution::now_ms;

const ISSUER: &str = "https://login.example.org";

/// A key that signs, for each algorithm that is taken. They were made for these tests.
fn signers() -> [(Algorithm, EncodingKey); 3] {
    [
        (Algorithm::RS256, EncodingKey::from_rsa_der(include_bytes!("rsa.der"))),
        (Algorithm::ES256, EncodingKey::from_ec_der(include_bytes!("ec.der"))),
        (Algorithm::EdDSA, EncodingKey::from_ed_der(include_bytes!("ed.der"))),
    ]
}

fn set() -> Value {
    let keys = signers().map(|(algorithm, key)| {
        let mut jwk = match algorithm {
            // The library does not make one of such a key.
            Algorithm::EdDSA => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": "rxiMdEu4I8KE064XR55-FKXsfxuQfAexAhzkQMICqaI" })
            }
            _ => serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).expect("a key")).expect("JSON"),
        };
        jwk["kid"] = format!("{algorithm:?}").into();
        jwk
    });
    json!({ "keys": keys })
}

fn issuers(set: &Value) -> std::result::Result<Issuers, String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), set.to_string()).expect("written");
    Issuers::load(&[IssuerSettings {
        issuer: ISSUER.into(),
        audience: "org-executor".into(),
        keys: file.path().into(),
        scope_claim: "scope".into(),
    }])
}

fn claims() -> Value {
    let exp = now_ms() / 1_000 + 600;
    json!({ "iss": ISSUER, "aud": ["x", "org-executor"], "sub": "ana", "exp": exp, "scope": "openid read execute" })
}

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    let header = Header { kid: Some(format!("{algorithm:?}")), ..Header::new(algorithm) };
    encode(&header, claims, key).expect("signed")
}

#[test]
fn a_good_token_of_each_algorithm_is_its_subject() {
    let issuers = issuers(&set()).expect("loaded");
    let mut clients = Vec::new();
    for (algorithm, key) in signers() {
        let token = signed(algorithm, &key, &claims());
        let principal = issuers.principal(&token).expect("good").expect("known");
        let name = principal.name(Client::UNNAMED);
        assert!(name.starts_with("jwt:") && name.ends_with(":ana"), "{name}");
        assert!(principal.has(&[Scope::Read]) && principal.has(&[Scope::Execute]));
        assert!(!principal.has(&[Scope::Write]) && !principal.has(&[Scope::Admin]));
        assert!(principal.is_good().is_ok());
        clients.push(principal.client(Client::UNNAMED));
        let again = issuers.principal(&token).expect("good").expect("known");
        assert!(Arc::ptr_eq(&principal, &again), "a token is looked at once");
    }
    assert!(clients.iter().all(|client| *client == clients[0]), "{clients:?}");
    let mut other = claims();
    other["sub"] = "bob".into();
    other["scope"] = json!(["admin"]);
    let (algorithm, key) = &signers()[2];
    let other = issuers.principal(&signed(*algorithm, key, &other)).expect("good").expect("known");
    assert!(other.client(Client::UNNAMED) != clients[0] && other.has(&[Scope::Admin]));
}

#[test]
fn a_token_that_is_not_good_says_why() {
    let issuers = issuers(&set()).expect("loaded");
    let (algorithm, key) = &signers()[1];
    let now = now_ms() / 1_000;
    for (claim, value, problem) in [
        ("exp", json!(now - 31), "has expired"),
        ("nbf", json!(now + 600), "is not good yet"),
        ("aud", json!("another"), "another audience"),
        ("aud", Value::Null, "lacks one of"),
        ("sub", Value::Null, "lacks one of"),
        ("exp", Value::Null, "lacks one of"),
    ] {
        let mut claims = claims();
        match value {
            Value::Null => drop(claims.as_object_mut().expect("an object").remove(claim)),
            value => claims[claim] = value,
        }
        let refused = issuers.principal(&signed(*algorithm, key, &claims)).expect_err(claim);
        assert_eq!(refused.code(), Code::Unauthorized);
        assert!(refused.to_string().contains(problem), "{claim}: {refused}");
    }
    let mut foreign = claims();
    foreign["iss"] = "https://evil.example".into();
    assert!(issuers.principal(&signed(*algorithm, key, &foreign)).expect("nobody").is_none());
}

#[test]
fn a_token_that_is_forged_is_nobodys() {
    let issuers = issuers(&set()).expect("loaded");
    let [(_, rsa), (es, ec), _] = signers();
    let good = signed(es, &ec, &claims());
    let (head, signature) = good.rsplit_once('.').expect("a token");
    let (header, payload) = head.split_once('.').expect("a token");
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    // The public key is no secret: a token that is signed with it as if it were one is forged (RFC 8725, 2.1).
    let public = serde_json::to_vec(&set()["keys"][0]).expect("JSON");
    let confused = signed(Algorithm::HS256, &EncodingKey::from_secret(&public), &claims());
    let renamed = {
        let header = Header { kid: Some("ES256".into()), ..Header::new(Algorithm::RS256) };
        encode(&header, &claims(), &rsa).expect("signed")
    };
    for forged in [
        format!("{none}.{payload}."),
        format!("{none}.{payload}.{signature}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}.{}", signature.chars().rev().collect::<String>()),
        format!("{header}.{}.{signature}", payload.replace('e', "f")),
        confused,
        renamed,
        good.replace('.', ""),
        "..".into(),
    ] {
        assert!(issuers.principal(&forged).expect("nobody's").is_none(), "{forged}");
    }
}

#[test]
fn a_set_without_a_key_that_is_taken_is_refused_by_its_name() {
    let mut some = set();
    some["keys"][0]["use"] = "enc".into();
    some["keys"][1]["alg"] = "ES384".into();
    some["keys"][2]["kty"] = "future".into();
    for bad in [some, json!({ "keys": [] }), json!({}), json!([])] {
        let refused = issuers(&bad).expect_err("no key");
        assert!(refused.contains("no key for RS256") || refused.contains("no set of keys"), "{refused}");
    }
    let missing = IssuerSettings {
        issuer: ISSUER.into(),
        audience: "a".into(),
        keys: "no/such.json".into(),
        scope_claim: "scope".into(),
    };
    let refused = Issuers::load(&[missing]).expect_err("no file");
    assert!(refused.contains("no/such.json"), "{refused}");
}
