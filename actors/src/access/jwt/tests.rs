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
    issuers_for(set, &["org-executor"])
}

/// The same issuer for each of these audiences.
fn issuers_for(set: &Value, audiences: &[&str]) -> std::result::Result<Issuers, String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), set.to_string()).expect("written");
    let settings = |audience: &&str| IssuerSettings {
        issuer: ISSUER.into(),
        audience: (*audience).into(),
        keys: file.path().into(),
        scope_claim: "scope".into(),
    };
    Issuers::load(&audiences.iter().map(settings).collect::<Vec<_>>())
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
        ("iss", json!("https://evil.example"), "of another issuer"),
        ("iss", json!([ISSUER, "https://evil.example"]), "`iss` of a wrong type"),
        ("sub", json!(""), "empty `sub`"),
        ("sub", json!(7), "wrong type"),
        ("exp", json!("soon"), "wrong type"),
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
}

#[test]
fn a_token_is_taken_for_each_audience_of_its_issuer() {
    let issuers = issuers_for(&set(), &["web", "org-executor"]).expect("loaded");
    let (algorithm, key) = &signers()[0];
    for (audience, is_good) in [("web", true), ("org-executor", true), ("other", false)] {
        let mut claims = claims();
        claims["aud"] = audience.into();
        let found = issuers.principal(&signed(*algorithm, key, &claims));
        match found {
            Ok(principal) => assert!(is_good && principal.is_some(), "{audience}"),
            Err(refused) => assert!(!is_good && refused.to_string().contains("audience"), "{refused}"),
        }
    }
}

#[tokio::test]
async fn whom_a_key_vouched_for_ends_with_it() {
    let before = issuers(&set()).expect("loaded");
    let mut principals = Vec::new();
    for (algorithm, key) in signers() {
        principals.push(before.principal(&signed(algorithm, &key, &claims())).expect("good").expect("known"));
    }
    let mut fewer = set();
    fewer["keys"].as_array_mut().expect("a list").remove(1);
    let now = issuers(&fewer).expect("loaded");
    before.yield_to(&now);
    principals[1].ended().await;
    assert!(principals[0].is_good().is_ok() && principals[2].is_good().is_ok());
    // Those that stayed are not forgotten.
    let other = issuers_for(&fewer, &["another"]).expect("loaded");
    now.yield_to(&other);
    principals[0].ended().await;
    principals[2].ended().await;
}

#[test]
fn what_is_kept_of_those_who_went_is_bounded() {
    let issuers = issuers(&set()).expect("loaded");
    let key = issuers.all[0].keys[0].clone();
    let mut came = Came::default();
    let stays = Arc::new(Principal::unbound());
    for _ in 0..10_000 {
        came.add(key.clone(), Arc::downgrade(&stays));
        came.add(key.clone(), Arc::downgrade(&Arc::new(Principal::unbound())));
    }
    assert!(came.all.len() < 30_000);
    let mut came = Came::default();
    for _ in 0..10_000 {
        came.add(key.clone(), Arc::downgrade(&Arc::new(Principal::unbound())));
    }
    assert!(came.all.len() <= 1_024);
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
        match issuers.principal(&forged) {
            Ok(principal) => assert!(principal.is_none(), "{forged}"),
            Err(refused) => assert!(refused.to_string().contains("signed by no key"), "{forged}: {refused}"),
        }
    }
}

#[test]
fn a_set_without_a_key_that_is_taken_is_refused_by_its_name() {
    let mut some = set();
    some["keys"][0]["use"] = "enc".into();
    some["keys"][1]["key_ops"] = json!(["sign"]);
    some["keys"][2]["kty"] = "future".into();
    let mut others = set();
    others["keys"][0]["key_ops"] = json!([]);
    others["keys"][1]["alg"] = "ES384".into();
    others["keys"].as_array_mut().expect("a list").remove(2);
    for bad in [some, others, json!({ "keys": [] }), json!({}), json!([])] {
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
