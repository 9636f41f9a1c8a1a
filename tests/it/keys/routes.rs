//! The matrix: every route of the API's own description, and every path of the WebSocket port, with each kind of credential.
//! A route that is added is in it at once, and fails it until it is told here which scopes it takes.

use std::collections::BTreeSet;

use actors::execution::now_ms;
use serde_json::{Value, json};

use super::{Locked, SOON_MS};
use crate::program::{shell, tool};

/// What may be asked without a key.
const PUBLIC: [&str; 3] = ["/healthz", "/readyz", "/openapi.json"];

/// One of these scopes lets a request in; `admin` always does.
fn scopes(method: &str, path: &str) -> Option<&'static [&'static str]> {
    let path = path.replace("/functions", "/tools").replace("/function", "/tool");
    Some(match (method, path.as_str()) {
        ("post", "/tools") | ("get", "/tools/export" | "/system" | "/metrics") => &["read"],
        (
            "get",
            "/tool/{id}" | "/tool/{name}/versions" | "/tool/{id}/revisions" | "/tool/{id}/revisions/{number}",
        ) => &["read"],
        ("post", "/tool" | "/tool/register/{id}" | "/tool/refresh/{id}") => &["write"],
        ("post", "/tools/import" | "/tools/import/{source}") => &["write"],
        ("put", "/tool/{id}" | "/tool/{id}/revisions/{number}") | ("delete", "/tool/{id}") => &["write"],
        ("post", "/tool/{id}/execute") | ("delete", "/execution/{uuid}") => &["execute"],
        ("get", "/execution/{uuid}" | "/execution/{uuid}/log" | "/executions") => &["read", "execute"],
        ("post" | "get", "/keys") | ("delete", "/keys/{id}") => &["admin"],
        ("get", "/audit" | "/audit/verify") => &["admin"],
        _ => return None,
    })
}

/// The method and the path of every route.
async fn routes(locked: &Locked) -> Vec<(String, String)> {
    let (status, document) = locked.ask(None, "GET", "/openapi.json", "").await;
    assert_eq!(status, 200);
    let paths = document["paths"].as_object().unwrap();
    let mut routes = vec![("get".to_owned(), "/metrics".to_owned())];
    for (path, methods) in paths {
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        routes.extend(methods.as_object().unwrap().keys().map(|method| (method.clone(), path.to_owned())));
    }
    routes
}

/// A request for this route that is well formed.
fn request(method: &str, path: &str, turn: usize) -> (String, String) {
    let filled = path
        .replace("{id}", if path.contains("/keys") { "0000000000000000" } else { "none" })
        .replace("{name}", "none")
        .replace("{number}", "1")
        .replace("{source}", "none")
        .replace("{uuid}", "00000000-0000-7000-8000-000000000000");
    let kind = if path.starts_with("/function") { "function" } else { "tool" };
    let id = format!("made-{turn}");
    let body = match (method, path) {
        ("post", "/tool" | "/function" | "/tools/import" | "/functions/import") => {
            format!("{}\n", json!({ format!("{kind}_id"): id }))
        }
        ("post", "/keys") => json!({ "name": "n", "scopes": ["read"] }).to_string(),
        ("put", path) if !path.contains("revisions") => {
            json!({ format!("{kind}_description"): "x" }).to_string()
        }
        ("post", path) if path.ends_with("/execute") || ["/tools", "/functions"].contains(&path) => {
            "{}".to_owned()
        }
        _ => String::new(),
    };
    (filled, body)
}

fn code(answer: &Value) -> &str {
    answer["code"].as_str().unwrap_or_default()
}

/// Credentials that let nobody in, and what each is.
pub async fn bad(locked: &Locked) -> Vec<(&'static str, Option<String>)> {
    let (revoked, id) = locked.key(&["admin"], json!({})).await;
    locked.revoke(&id).await;
    let (expired, _) = locked.key(&["admin"], json!({ "expires_ms": now_ms() + SOON_MS })).await;
    locked.until(&expired, "/keys", |status, _| status != 200).await;
    let mut forged = locked.admin.clone();
    forged.replace_range(forged.len() - 1.., if forged.ends_with('0') { "1" } else { "0" });
    let unknown = format!("oe_0123456789abcdef_{}", "0".repeat(64));
    vec![
        ("none", None),
        ("empty", Some(String::new())),
        ("no key", Some("x".into())),
        ("no token", Some("a.b.c".into())),
        ("forged", Some(forged)),
        ("unknown", Some(unknown)),
        ("revoked", Some(revoked)),
        ("expired", Some(expired)),
    ]
}

#[tokio::test]
async fn every_route_takes_the_scopes_that_it_needs_and_nobody_without_a_good_key() {
    every_route(&Locked::start().await).await;
}

#[tokio::test]
async fn every_route_takes_the_scopes_that_it_needs_over_tls_too() {
    if let Some(locked) = Locked::with_tls().await {
        every_route(&locked).await;
    }
}

async fn every_route(locked: &Locked) {
    let bad = bad(locked).await;
    let mut keys = Vec::new();
    for scope in ["read", "write", "execute", "admin"] {
        keys.push((scope, locked.key(&[scope], json!({})).await.0));
    }
    let routes = routes(locked).await;
    let (mut turn, mut seen) = (0, 0);
    for (method, path) in &routes {
        let upper = method.to_uppercase();
        for (name, key) in &bad {
            let (filled, body) = request(method, path, turn);
            let response = locked.send(key.as_deref(), &upper, &filled, &body).await;
            seen += 1;
            if PUBLIC.contains(&path.as_str()) {
                assert_eq!(response.status(), 200, "{method} {path} with {name}");
                continue;
            }
            assert_eq!(response.status(), 401, "{method} {path} with {name}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            assert_eq!(code(&answer), "unauthorized", "{answer}");
        }
        if PUBLIC.contains(&path.as_str()) {
            continue;
        }
        let needed =
            scopes(method, path).unwrap_or_else(|| panic!("which scopes does {method} {path} take?"));
        for (scope, key) in &keys {
            turn += 1;
            seen += 1;
            let (filled, body) = request(method, path, turn);
            let (status, answer) = locked.ask(Some(key), &upper, &filled, &body).await;
            if needed.contains(scope) || *scope == "admin" {
                assert!(
                    ![401, 403].contains(&status) && status < 500,
                    "{method} {path} with {scope}: {status} {answer}"
                );
            } else {
                assert_eq!(
                    (status, code(&answer)),
                    (403, "forbidden"),
                    "{method} {path} with {scope}: {answer}"
                );
            }
        }
    }
    let others = beyond_its_ids(locked, &routes).await;
    let mut sockets = 0;
    for path in ["/tool", "/function", "/session", "/none"] {
        for (name, key) in &bad {
            sockets += 1;
            let refused = locked.socket(key.as_deref(), path).await.err();
            assert_eq!(refused, Some(401), "{path} with {name}");
        }
        for (scope, key) in &keys {
            sockets += 1;
            let refused = locked.socket(Some(key), path).await.err();
            let may = ["execute", "admin"].contains(scope);
            assert_eq!(refused, (!may).then_some(403), "{path} with {scope}");
        }
    }
    let methods: BTreeSet<&str> = routes.iter().map(|(method, _)| method.as_str()).collect();
    let over = if locked.tls.is_some() { "over TLS" } else { "in plain" };
    println!(
        "{over}: {seen} requests to {} routes ({methods:?}) with {} bad credentials and 4 scopes, {others} of another \
         principal, {sockets} handshakes of 4 WebSocket paths",
        routes.len(),
        bad.len()
    );
    assert!(routes.len() > 30, "{routes:?}");
}

/// Every route with a key that may do all but administer, to ids of its own: of a definition, an execution and their like that
/// are another's it learns nothing, and changes nothing. Gives how many requests that were.
async fn beyond_its_ids(locked: &Locked, routes: &[(String, String)]) -> usize {
    let (owner, _) = locked.key(&["execute"], json!({})).await;
    let owned = ["tool", "function"].map(|kind| {
        let mut owned = json!({ format!("{kind}_id"): "owned-by-another" });
        owned[format!("{kind}_metadata")] = shell("printf 1");
        owned
    });
    for definition in &owned {
        locked.create(definition).await;
    }
    // To its end, from which on it is counted too.
    let run = "/tool/owned-by-another/execute?wait=30";
    let (_, answer) = locked.ask(Some(&owner), "POST", run, "{}").await;
    let uuid = answer["data"]["uuid"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let (other, _) = locked.key(&["read", "write", "execute"], json!({ "ids": ["theirs-*"] })).await;
    let mut seen = 0;
    for (method, path) in routes.iter().filter(|(_, path)| !PUBLIC.contains(&path.as_str())) {
        let named = path.replace("{uuid}", uuid);
        let named = if path.contains("/keys") {
            named
        } else {
            named.replace("{id}", "{name}").replace("{name}", "owned-by-another")
        };
        let (filled, body) = request(method, &named, seen);
        let (status, answer) = locked.ask(Some(&other), &method.to_uppercase(), &filled, &body).await;
        seen += 1;
        if path.contains('{') || path.contains("/keys") {
            assert!([403, 404].contains(&status), "{method} {path}: {status} {answer}");
            continue;
        }
        assert!(status < 500 && status != 401, "{method} {path}: {status} {answer}");
        let text = answer.to_string();
        assert!(!text.contains("owned-by-another") && !text.contains(uuid), "{method} {path}: {text}");
    }
    for kind in ["tool", "function"] {
        let path = format!("/{kind}/owned-by-another/revisions");
        let (_, answer) = locked.ask(Some(&locked.admin), "GET", &path, "").await;
        assert_eq!(answer["data"].as_array().unwrap().len(), 1, "{answer}");
    }
    seen
}

/// What a filter, a sort or a cursor says does not lead past the ids of a key.
#[tokio::test]
async fn no_filter_leads_past_the_ids_of_a_key() {
    let locked = Locked::start().await;
    for id in ["mine-1", "mine-2", "other-1", "other-2"] {
        let mut tool = tool(id, shell("printf 1"));
        tool["tool_search_tags"] = json!(["same"]);
        tool["tool_description"] = "a common word".into();
        locked.create(&tool).await;
    }
    let (key, _) = locked.key(&["read"], json!({ "ids": ["mine-*"] })).await;
    for filter in [
        json!({}),
        json!({ "tool_search_tags": "same" }),
        json!({ "tool_id": { "$in": ["mine-1", "mine-2", "other-1"] } }),
        json!({ "$or": [{ "tool_id": { "$regex": "^other" } }, { "tool_search_tags": "same" }] }),
        json!({ "$text": { "$search": "common" } }),
        json!({ "$nor": [{ "tool_id": "none" }] }),
        json!({ "tool_id": { "$ne": "none" } }),
    ] {
        for sort in ["", "?sort=id", "?sort=-updated", "?sort=created&limit=1"] {
            let mut found = Vec::new();
            let mut path = format!("/tools{sort}");
            loop {
                let (status, answer) = locked.ask(Some(&key), "POST", &path, &filter.to_string()).await;
                assert_eq!(status, 200, "{answer}");
                let items = answer["data"].as_array().unwrap();
                found.extend(items.iter().map(|tool| tool["tool_id"].as_str().unwrap().to_owned()));
                let Some(next) = answer["next"].as_str() else { break };
                path = format!("/tools{sort}{}cursor={next}", if sort.is_empty() { "?" } else { "&" });
            }
            found.sort();
            assert_eq!(found, ["mine-1", "mine-2"], "{filter} {sort}");
        }
    }
}
