//! The matrix of what can be asked about executions: to run, to cancel, to be told, over REST and as frames of `/session`, in
//! plain and over TLS, with each kind of credential.

use serde_json::{Value, json};

use super::Locked;
use super::routes::bad;
use crate::program::{Gate, tool};

/// What is asked.
const KINDS: [&str; 3] = ["execute", "cancel", "attach"];

/// A frame of `/session`.
fn frame(kind: &str, uuid: &str) -> String {
    match kind {
        "execute" => json!({ "id": kind, "tool_id": "wait", "input_data": {} }),
        _ => json!({ "id": kind, kind: uuid }),
    }
    .to_string()
}

/// The same over REST: its status and its answer.
async fn over_rest(locked: &Locked, key: Option<&str>, kind: &str, uuid: &str) -> (u16, Value) {
    let of = format!("/execution/{uuid}");
    match kind {
        "execute" => locked.ask(key, "POST", "/tool/wait/execute", "{}").await,
        "cancel" => locked.ask(key, "DELETE", &of, "").await,
        _ => locked.ask(key, "GET", &of, "").await,
    }
}

/// One frame on a connection of its own: the first that comes back.
async fn over_socket(locked: &Locked, key: &str, kind: &str, uuid: &str) -> Value {
    let mut socket = locked.socket(Some(key), "/session").await.unwrap();
    socket.send(&frame(kind, uuid)).await;
    socket.frame().await.unwrap()
}

/// Begins an execution that waits.
async fn begun(locked: &Locked, key: &str) -> String {
    let (status, answer) = over_rest(locked, Some(key), "execute", "").await;
    assert_eq!(status, 202, "{answer}");
    answer["data"]["uuid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_asked_of_an_execution_is_answered_to_its_principal_alone() {
    every_kind(&Locked::start().await).await;
}

#[tokio::test]
async fn what_is_asked_of_an_execution_is_answered_to_its_principal_alone_over_tls_too() {
    if let Some(locked) = Locked::with_tls().await {
        every_kind(&locked).await;
    }
}

async fn every_kind(locked: &Locked) {
    let gate = Gate::new();
    locked.create(&tool("wait", gate.program("printf 1"))).await;
    let (owner, _) = locked.key(&["execute"], json!({})).await;
    let uuid = begun(locked, &owner).await;
    let mut seen = without_a_good_key(locked, &uuid).await;
    seen += with_a_key_that_ends_meanwhile(locked, &uuid).await;
    seen += of_another_principal(locked, &uuid).await;
    // Nothing of all that has touched it.
    let (_, answer) = over_rest(locked, Some(&owner), "attach", &uuid).await;
    assert!(["queued", "running"].contains(&answer["data"]["state"].as_str().unwrap()), "{answer}");
    seen += of_its_own_and_of_an_administrator(locked, &owner).await;
    gate.open();
    let over = if locked.tls.is_some() { "over TLS" } else { "in plain" };
    println!("{over}: {seen} requests and frames of {} kinds", KINDS.len());
}

/// No credential, a bad one, one without the scope: over REST an answer that says so, and no connection for a frame.
async fn without_a_good_key(locked: &Locked, uuid: &str) -> usize {
    let mut seen = 0;
    let mut refused: Vec<_> = bad(locked).await.into_iter().map(|(name, key)| (name, key, 401)).collect();
    for scope in ["read", "write"] {
        refused.push((scope, Some(locked.key(&[scope], json!({})).await.0), 403));
    }
    for (name, key, status) in &refused {
        for kind in KINDS {
            let (answered, answer) = over_rest(locked, key.as_deref(), kind, uuid).await;
            // Whoever may read may ask for outcomes, but those of others are not there.
            let expected = if (kind, *name) == ("attach", "read") { 404 } else { *status };
            assert_eq!(answered, expected, "{kind} with {name}: {answer}");
            let opened = locked.socket(key.as_deref(), "/session").await.err();
            assert_eq!(opened, Some(*status), "{kind} with {name}");
            seen += 2;
        }
    }
    seen
}

/// A frame that comes after its key was revoked finds the connection shut.
async fn with_a_key_that_ends_meanwhile(locked: &Locked, uuid: &str) -> usize {
    for kind in KINDS {
        let (key, id) = locked.key(&["execute"], json!({})).await;
        let mut socket = locked.socket(Some(&key), "/session").await.unwrap();
        locked.revoke(&id).await;
        socket.send(&frame(kind, uuid)).await;
        let talk = socket.rest().await;
        assert_eq!(
            (talk.last()["code"].as_str(), talk.close),
            (Some("unauthorized"), Some(1008)),
            "{talk:?}"
        );
        assert!(talk.uuid().is_none(), "{kind}: {talk:?}");
    }
    KINDS.len()
}

/// For another principal the execution is not there, and for one with other ids neither is the tool.
async fn of_another_principal(locked: &Locked, uuid: &str) -> usize {
    let (other, _) = locked.key(&["read", "execute"], json!({})).await;
    let (elsewhere, _) = locked.key(&["read", "execute"], json!({ "ids": ["theirs-*"] })).await;
    let mut seen = 0;
    for (name, key, kinds) in [("other", &other, &KINDS[1..]), ("with other ids", &elsewhere, &KINDS[..])] {
        for kind in kinds {
            let (status, answer) = over_rest(locked, Some(key), kind, uuid).await;
            assert_eq!((status, &answer["code"]), (404, &json!("not_found")), "{kind} by {name}: {answer}");
            let frame = over_socket(locked, key, kind, uuid).await;
            assert_eq!(
                (&frame["success"], &frame["code"]),
                (&json!(false), &json!("not_found")),
                "{kind} by {name}: {frame}"
            );
            seen += 2;
        }
    }
    seen
}

/// Whoever began it may ask, and whoever may do everything.
async fn of_its_own_and_of_an_administrator(locked: &Locked, owner: &str) -> usize {
    let mut seen = 0;
    for key in [owner, &locked.admin] {
        for kind in ["attach", "cancel"] {
            let (rest, socket) = (begun(locked, owner).await, begun(locked, owner).await);
            let (status, answer) = over_rest(locked, Some(key), kind, &rest).await;
            assert_eq!(status, 200, "{kind}: {answer}");
            let frame = over_socket(locked, key, kind, &socket).await;
            assert_eq!(frame["uuid"], socket.as_str(), "{kind}: {frame}");
            seen += 2;
            for uuid in [rest, socket] {
                // Places in the pool are few.
                locked.ask(Some(owner), "DELETE", &format!("/execution/{uuid}"), "").await;
            }
        }
        let frame = over_socket(locked, key, "execute", "").await;
        assert!(frame["uuid"].is_string() && frame["success"] == true, "{frame}");
        seen += 1;
    }
    seen
}
