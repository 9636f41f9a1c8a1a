//! Who may come in and what they may do: API keys with scopes, ids and limits, and tokens that others sign; on both ports
//! and through the built binary. `routes` has the matrix of all routes and credentials.

use std::time::{Duration, Instant};

use actors::execution::now_ms;
use futures_util::future::join_all;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::Connector;

use crate::client::client_with_key;
use crate::program::{Gate, function, shell, tool};
use crate::server::{Answer, Server};
use crate::service::{Launch, PATIENCE, Service, eventually, kind_of, request};
use crate::socket::Socket;
use crate::tls;

mod frames;
mod routes;

/// A set of keys with one for EdDSA, and tokens that were signed with it: one of `ana` with `openid read execute` until the
/// year 2100, and one of `bob` with `admin` until 2001.
const KEY_SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"one",
    "x":"rxiMdEu4I8KE064XR55-FKXsfxuQfAexAhzkQMICqaI"}]}"#;
const OF_ANA: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCIsImtpZCI6Im9uZSJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUub3JnIiwiYXVkIjoib3JnLWV4ZWN1dG9yIiwic3ViIjoiYW5hIiwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6Im9wZW5pZCByZWFkIGV4ZWN1dGUifQ.hb7tTYZ7MNOcdX-zofnDVEI481CAoc59xTQV6bX8j2FB80HuHP99Oo5mxlFovrvnJgVH4Gr_GhmhxR8Z7N6RAw";
const OF_BOB_EXPIRED: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCIsImtpZCI6Im9uZSJ9.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUub3JnIiwiYXVkIjoib3JnLWV4ZWN1dG9yIiwic3ViIjoiYm9iIiwiZXhwIjoxMDAwMDAwMDAwLCJzY29wZSI6ImFkbWluIn0.bhf5LPNSyCcC90asf3sLgOLzKsXkQVxW8dxIcB4sNrmYZe1DMNHybKROON6EKEqNUElkZs3ZETsuqDVucELYCA";

/// How long a key lasts that is to end, which is enough to make it and to use it once.
const SOON_MS: u64 = 4_000;

/// A service that has a key.
struct Locked {
    service: Service,
    admin: String,
    /// What its clients trust, where it speaks TLS.
    tls: Option<(Client, Connector)>,
}

impl Locked {
    async fn start() -> Self {
        Self::on(Launch::new().limits().memory().start().await).await
    }

    async fn on(service: Service) -> Self {
        Self { service, admin: String::new(), tls: None }.locked().await
    }

    /// With TLS on both ports. None, which it says, where no certificate can be made.
    async fn with_tls() -> Option<Self> {
        let service = tls::served().await?;
        let trusted = (tls::trusting(&service, "one.pem"), tls::connector(&service, "one.pem"));
        Some(Self { service, admin: String::new(), tls: Some(trusted) }.locked().await)
    }

    /// Makes the first key.
    async fn locked(mut self) -> Self {
        let wanted = json!({ "name": "admin", "scopes": ["admin"] });
        let (status, answer) = self.ask(None, "POST", "/keys", &wanted.to_string()).await;
        assert_eq!(status, 201, "{answer}");
        self.admin = answer["data"]["key"].as_str().unwrap().to_owned();
        self
    }

    /// Makes a key, and gives it with its id.
    async fn key(&self, scopes: &[&str], bounds: Value) -> (String, String) {
        let mut wanted = json!({ "name": scopes.join(" "), "scopes": scopes });
        wanted.as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
        let (status, answer) = self.ask(Some(&self.admin), "POST", "/keys", &wanted.to_string()).await;
        assert_eq!(status, 201, "{answer}");
        let text = |field: &str| answer["data"][field].as_str().unwrap().to_owned();
        (text("key"), text("id"))
    }

    async fn revoke(&self, id: &str) {
        let (status, answer) = self.ask(Some(&self.admin), "DELETE", &format!("/keys/{id}"), "").await;
        assert_eq!((status, &answer["data"]["state"]), (200, &json!("revoked")), "{answer}");
    }

    async fn ask(&self, key: Option<&str>, method: &str, path: &str, body: &str) -> (u16, Value) {
        let response = self.send(key, method, path, body).await;
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn send(&self, key: Option<&str>, method: &str, path: &str, body: &str) -> Response {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let (client, scheme) = match &self.tls {
            Some((client, _)) => (client, "https"),
            None => (self.service.client(), "http"),
        };
        let mut request = client.request(method, format!("{scheme}://{}{path}", self.service.rest));
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if !body.is_empty() {
            let lines = path.starts_with("/tools/import") || path.starts_with("/functions/import");
            let declared = if lines { "application/x-ndjson" } else { "application/json" };
            request = request.header("content-type", declared).body(body.to_owned());
        }
        request.send().await.unwrap()
    }

    /// Asks until the answer is such.
    async fn until(&self, key: &str, path: &str, holds: impl Fn(u16, &Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, answer) = self.ask(Some(key), "GET", path, "").await;
            if holds(status, &answer) {
                return;
            }
            assert!(Instant::now() < deadline, "{path}: {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn create(&self, definition: &Value) {
        let kind = kind_of(definition);
        let (status, answer) =
            self.ask(Some(&self.admin), "POST", &format!("/{kind}"), &definition.to_string()).await;
        assert_eq!(status, 201, "{answer}");
    }

    async fn socket(&self, key: Option<&str>, path: &str) -> Result<Socket, u16> {
        let credential = key.map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> =
            credential.iter().map(|value| ("authorization", value.as_str())).collect();
        let tls = self.tls.as_ref().map(|(_, connector)| connector.clone());
        opened(Socket::open_over(self.service.websocket, path, &headers, tls).await)
    }

    /// Runs a tool over a connection of its own: what its last frame says.
    async fn run(&self, key: &str, id: &str) -> Value {
        let mut socket = self.socket(Some(key), "/tool").await.unwrap();
        socket.send(&request("tool", id, json!({}))).await;
        socket.rest().await.last().clone()
    }
}

/// A connection, or the status with which its handshake was refused.
fn opened(opened: tokio_tungstenite::tungstenite::Result<Socket>) -> Result<Socket, u16> {
    match opened {
        Ok(socket) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
            let body: Value = serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap();
            assert_eq!(body["success"], false, "{body}");
            Err(response.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_first_key_shuts_the_door_on_who_is_in_already() {
    let service = Launch::new().limits().memory().start().await;
    let (status, answer) = service.rest("POST", "/keys", r#"{"name":"n","scopes":["read"]}"#).await;
    assert_eq!((status, &answer["code"]), (400, &json!("invalid")), "{answer}");
    let mut inside = service.socket("/session").await;
    let locked = Locked::on(service).await;
    let farewell = inside.frame().await.unwrap();
    assert_eq!(
        (&farewell["success"], &farewell["code"]),
        (&json!(false), &json!("unauthorized")),
        "{farewell}"
    );
    assert_eq!(inside.rest().await.close, Some(1008));
    assert_eq!(locked.ask(None, "POST", "/tools", "{}").await.0, 401);
    assert_eq!(locked.socket(None, "/tool").await.err(), Some(401));
    let (status, answer) = locked.ask(Some(&locked.admin), "POST", "/tools", "{}").await;
    assert_eq!(status, 200, "{answer}");
    // A key is not a second time in what is told of it, nor its hash.
    let (_, listed) = locked.ask(Some(&locked.admin), "GET", "/keys", "").await;
    let secret = locked.admin.rsplit('_').next().unwrap();
    assert!(!listed.to_string().contains(secret) && listed["data"][0].get("hash").is_none(), "{listed}");
    assert!(!locked.service.log().contains(secret));
}

#[tokio::test]
async fn a_key_that_is_revoked_ends_its_sessions_and_no_other_one() {
    let locked = Locked::start().await;
    let (key, id) = locked.key(&["execute"], json!({})).await;
    let (other, _) = locked.key(&["execute"], json!({})).await;
    let gate = Gate::new();
    locked.create(&tool("wait", gate.program("printf 1"))).await;
    let mut session = locked.socket(Some(&key), "/session").await.unwrap();
    let mut once = locked.socket(Some(&key), "/tool").await.unwrap();
    once.send(&request("tool", "wait", json!({}))).await;
    let accepted = once.frame().await.unwrap();
    let uuid = accepted["uuid"].as_str().unwrap().to_owned();
    let mut spared = locked.socket(Some(&other), "/session").await.unwrap();
    locked.revoke(&id).await;
    for socket in [&mut session, &mut once] {
        assert_eq!(socket.frame().await.unwrap()["code"], "unauthorized");
    }
    assert_eq!((session.rest().await.close, once.rest().await.close), (Some(1008), Some(1008)));
    assert_eq!(locked.socket(Some(&key), "/session").await.err(), Some(401));
    spared.send(r#"{"id":1,"tool_id":"none","input_data":{}}"#).await;
    assert_eq!(spared.frame().await.unwrap()["error"], "Tool not registered");
    // What it began goes on.
    gate.open();
    let path = format!("/execution/{uuid}");
    locked.until(&locked.admin, &path, |_, answer| answer["data"]["state"] == "succeeded").await;
}

#[tokio::test]
async fn a_key_that_expires_ends_its_session() {
    let locked = Locked::start().await;
    let soon = now_ms() + SOON_MS;
    let (key, _) = locked.key(&["execute"], json!({ "expires_ms": soon })).await;
    let mut session = locked.socket(Some(&key), "/session").await.unwrap();
    assert_eq!(session.frame().await.unwrap()["code"], "unauthorized");
    assert_eq!(session.rest().await.close, Some(1008));
    let (status, answer) = locked.ask(Some(&key), "GET", "/executions", "").await;
    assert_eq!((status, &answer["error"]), (401, &json!("this key has expired")), "{answer}");
}

#[tokio::test]
async fn what_lies_beyond_its_ids_is_not_there_for_a_key() {
    let locked = Locked::start().await;
    for id in ["mine-a", "mine-b:v1.0.0", "other"] {
        locked.create(&tool(id, shell("printf 1"))).await;
    }
    let scopes = ["read", "write", "execute"];
    let (key, _) = locked.key(&scopes, json!({ "ids": ["mine-*", "new?"] })).await;
    let own = key.as_str();
    let key = Some(own);
    for (method, path, body) in [
        ("GET", "/tool/other", ""),
        ("PUT", "/tool/other", r#"{"tool_description":"x"}"#),
        ("DELETE", "/tool/other", ""),
        ("GET", "/tool/other/revisions", ""),
        ("GET", "/tool/other/revisions/1", ""),
        ("PUT", "/tool/other/revisions/1", ""),
        ("GET", "/tool/other/versions", ""),
        ("POST", "/tool/refresh/other", ""),
        ("POST", "/tool/other/execute", "{}"),
    ] {
        let (status, answer) = locked.ask(key, method, path, body).await;
        assert_eq!(
            (status, &answer["error"]),
            (404, &json!("Tool not registered")),
            "{method} {path}: {answer}"
        );
    }
    let (status, answer) = locked.ask(key, "POST", "/tools", "{}").await;
    let ids: Vec<&str> =
        answer["data"].as_array().unwrap().iter().map(|tool| tool["tool_id"].as_str().unwrap()).collect();
    assert_eq!((status, ids), (200, vec!["mine-a", "mine-b:v1.0.0"]));
    let (_, versions) = locked.ask(key, "GET", "/tool/mine-b/versions", "").await;
    assert_eq!(versions["data"][0]["tool_id"], "mine-b:v1.0.0");
    assert_eq!(locked.run(own, "mine-b").await["output"], json!(1));
    assert_eq!(locked.run(own, "other").await["error"], "Tool not registered");
    let (status, answer) =
        locked.ask(key, "POST", "/tool", &tool("else", shell("printf 1")).to_string()).await;
    assert_eq!((status, &answer["code"]), (403, &json!("forbidden")), "{answer}");
    assert_eq!(locked.ask(key, "POST", "/tool/register/else", "").await.0, 403);
    let lines = ["new1", "else", "new2"].map(|id| format!("{}\n", tool(id, shell("printf 1"))));
    let (_, answer) = locked.ask(key, "POST", "/tools/import", &lines.concat()).await;
    let results: Vec<Value> =
        answer.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let became: Vec<&Value> = results.iter().take(3).map(|line| &line["result"]).collect();
    assert_eq!(became, ["created", "failed", "created"], "{answer}");
    assert_eq!(results[1]["code"], "forbidden");
    let (_, exported) = locked.ask(key, "GET", "/tools/export", "").await;
    assert_eq!(exported.as_str().unwrap().lines().count(), 4, "{exported}");
    assert_eq!(locked.ask(Some(&locked.admin), "GET", "/tool/else", "").await.0, 404);
}

#[tokio::test]
async fn one_principal_sees_nothing_of_what_another_one_runs() {
    let locked = Locked::start().await;
    let (one, id) = locked.key(&["execute"], json!({})).await;
    let (other, _) = locked.key(&["read", "execute"], json!({})).await;
    let gate = Gate::new();
    locked.create(&tool("wait", gate.program("printf 1"))).await;
    let path = "/tool/wait/execute";
    let (status, answer) = locked.ask(Some(&one), "POST", path, "{}").await;
    assert_eq!(status, 202, "{answer}");
    let uuid = answer["data"]["uuid"].as_str().unwrap().to_owned();
    let of = format!("/execution/{uuid}");
    for (method, path) in [("GET", of.clone()), ("GET", format!("{of}/log")), ("DELETE", of.clone())] {
        let (status, answer) = locked.ask(Some(&other), method, &path, "").await;
        assert_eq!((status, &answer["code"]), (404, &json!("not_found")), "{method} {path}: {answer}");
    }
    assert_eq!(locked.ask(Some(&other), "GET", "/executions", "").await.1["data"], json!([]));
    let mut session = locked.socket(Some(&other), "/session").await.unwrap();
    for asked in ["attach", "cancel"] {
        session.send(&json!({ "id": asked, asked: uuid }).to_string()).await;
        assert_eq!(session.frame().await.unwrap()["code"], "not_found", "{asked}");
    }
    for key in [&one, &locked.admin] {
        let (status, answer) = locked.ask(Some(key), "GET", &of, "").await;
        assert_eq!((status, &answer["data"]["client"]), (200, &json!(format!("key:{id}"))), "{answer}");
        assert_eq!(locked.ask(Some(key), "GET", "/executions", "").await.1["data"][0]["uuid"], uuid.as_str());
    }
    let mut session = locked.socket(Some(&one), "/session").await.unwrap();
    session.send(&json!({ "id": 1, "attach": uuid }).to_string()).await;
    assert_eq!(session.frame().await.unwrap()["uuid"], uuid.as_str());
    assert_eq!(locked.ask(Some(&one), "DELETE", &of, "").await.0, 200);
    assert_eq!(session.frame().await.unwrap()["code"], "cancelled");

    // The same idempotency key of another principal is another execution.
    locked.create(&tool("quick", shell("printf 1"))).await;
    let mut uuids = Vec::new();
    for key in [&one, &other, &one] {
        let path = "/tool/quick/execute";
        let request = locked.service.client().post(locked.service.url(path)).bearer_auth(key);
        let request =
            request.header("idempotency-key", "k").header("content-type", "application/json").body("{}");
        let answer: Value =
            serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        uuids.push(answer["data"]["uuid"].as_str().unwrap().to_owned());
    }
    assert!(uuids[0] != uuids[1] && uuids[0] == uuids[2], "{uuids:?}");
}

#[tokio::test]
async fn a_key_has_its_rate_and_its_number_of_open_executions() {
    let locked = Locked::start().await;
    let gate = Gate::new();
    locked.create(&tool("wait", gate.program("printf 1"))).await;
    let (slow, _) = locked.key(&["read", "execute"], json!({ "requests_per_second": 1 })).await;
    // At once, so that they come within a second on a busy machine too.
    let asked = join_all((0..20).map(|_| locked.send(Some(&slow), "POST", "/tools", "{}"))).await;
    let (refused, served): (Vec<_>, Vec<_>) =
        asked.iter().partition(|response| response.status() == StatusCode::TOO_MANY_REQUESTS);
    assert!(!refused.is_empty() && !served.is_empty(), "{asked:?}");
    assert!(served.iter().all(|response| response.status() == StatusCode::OK), "{served:?}");
    assert!(refused.iter().all(|response| response.headers()["retry-after"] == "1"), "{refused:?}");
    let opened = join_all((0..20).map(|_| locked.socket(Some(&slow), "/tool"))).await;
    assert!(opened.iter().any(|opened| opened.as_ref().err() == Some(&429)));

    let (few, _) = locked.key(&["execute"], json!({ "max_open": 1 })).await;
    assert_eq!(locked.ask(Some(&few), "POST", "/tool/wait/execute", "{}").await.0, 202);
    let (status, answer) = locked.ask(Some(&few), "POST", "/tool/wait/execute", "{}").await;
    assert_eq!((status, &answer["code"]), (429, &json!("overloaded")), "{answer}");
    let other = locked.ask(Some(&locked.admin), "POST", "/tool/wait/execute", "{}").await;
    assert_eq!(other.0, 202, "{other:?}");
    gate.open();
}

#[tokio::test]
async fn keys_are_kept_and_the_command_line_makes_the_first_one_without_a_service() {
    let service = Launch::new().limits().start().await;
    let folder = service.folder();
    assert!(service.stop().await.success());
    let on = || Launch::on(folder.clone()).limits();
    let (status, said) = on().output("key", &["create", "--offline", "ops", "--scope", "read"]).await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("the first key needs the scope `admin`"), "{said}");
    let (status, said) = on().output("key", &["create", "--offline", "ops", "--scope", "admin"]).await;
    assert!(status.success(), "{said}");
    let admin = said.lines().next().unwrap().to_owned();
    assert!(admin.starts_with("oe_") && admin.len() == 84, "{said}");

    let service = on().start().await;
    let locked = Locked { service, admin, tls: None };
    let said = client_with_key(&locked.service, "", "tool list").await;
    assert!(said.code == Some(1) && said.stderr.contains("asks for a key"), "{said:?}");
    let said = client_with_key(
        &locked.service,
        &locked.admin,
        "--json key create ci --scope read,execute --id build-* --expires 1h",
    )
    .await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let made: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&made["scopes"], &made["ids"]), (&json!(["read", "execute"]), &json!(["build-*"])));
    let ci = made["key"].as_str().unwrap();
    let said = client_with_key(&locked.service, ci, "run tool binary-increment-tool {\"value\":1}").await;
    assert!(said.code == Some(1) && said.stderr.contains("Tool not registered"), "{said:?}");
    let said =
        client_with_key(&locked.service, &locked.admin, "run tool binary-increment-tool {\"value\":1}").await;
    assert_eq!((said.code, said.stdout.contains("2")), (Some(0), true), "{said:?}");
    let id = made["id"].as_str().unwrap();
    let said = client_with_key(&locked.service, &locked.admin, &format!("key revoke {id}")).await;
    assert_eq!(said.stdout, "Key revoked\n", "{said:?}");
    let said = client_with_key(&locked.service, &locked.admin, "key list").await;
    assert_eq!(said.stdout.lines().count(), 3, "{said:?}");
    let line = said.stdout.lines().last().unwrap();
    for part in [id, "revoked", "read,execute", "build-*", "ci"] {
        assert!(line.contains(part), "{said:?}");
    }
    let said = client_with_key(&locked.service, ci, "tool list").await;
    assert!(said.stderr.contains("this key was revoked"), "{said:?}");
    let (status, said) = on().output("key", &["list", "--offline"]).await;
    assert!(!status.success() && said.contains("in use by another process"), "{said}");
    // The last key that can make others stays.
    let (_, listed) = locked.ask(Some(&locked.admin), "GET", "/keys", "").await;
    let own = listed["data"][0]["id"].as_str().unwrap();
    assert_eq!(locked.ask(Some(&locked.admin), "DELETE", &format!("/keys/{own}"), "").await.0, 409);
}

#[tokio::test]
async fn a_web_page_shows_its_key_among_the_subprotocols() {
    let locked = Locked::start().await;
    let (key, _) = locked.key(&["execute"], json!({})).await;
    locked.create(&function("one", shell("printf 1"))).await;
    let protocols = format!("org-executor, bearer.{key}");
    let headers = [("sec-websocket-protocol", protocols.as_str())];
    let mut socket = Socket::open_with(locked.service.websocket, "/function", &headers).await.unwrap();
    socket.send(&request("function", "one", json!({}))).await;
    assert_eq!(socket.rest().await.output(), &json!(1));
    let forged = protocols.replace("bearer.oe_", "bearer.oe_f");
    let refused =
        Socket::open_with(locked.service.websocket, "/function", &[("sec-websocket-protocol", &forged)])
            .await;
    assert_eq!(opened(refused).err(), Some(401));
}

#[tokio::test]
async fn a_token_that_an_issuer_signed_is_its_subject() {
    let launch = Launch::new().limits().memory();
    let keys = launch.path("jwks.json");
    std::fs::write(&keys, KEY_SET).unwrap();
    let issuers = format!(
        "[{{issuer = 'https://login.example.org', audience = 'org-executor', keys = '{}'}}]",
        keys.display()
    );
    let service = launch.set("AUTH__ISSUERS", issuers).start().await;
    let locked = Locked { service, admin: String::new(), tls: None };
    assert_eq!(locked.ask(None, "POST", "/tools", "{}").await.0, 401);
    assert_eq!(locked.ask(Some(OF_ANA), "POST", "/tools", "{}").await.0, 200);
    assert_eq!(locked.ask(Some(OF_ANA), "DELETE", "/tool/word-count", "").await.0, 403);
    let (status, answer) = locked.ask(Some(OF_BOB_EXPIRED), "POST", "/tools", "{}").await;
    assert_eq!((status, &answer["error"]), (401, &json!("this token has expired")), "{answer}");
    let mut socket = locked.socket(Some(OF_ANA), "/tool").await.unwrap();
    socket.send(&request("tool", "binary-increment-tool", json!({ "value": 1 }))).await;
    assert_eq!(socket.rest().await.output(), &json!({ "result": 2 }));
    let (_, answer) = locked.ask(Some(OF_ANA), "GET", "/executions", "").await;
    assert!(answer["data"][0]["client"].as_str().unwrap().starts_with("jwt:"), "{answer}");

    // A set whose keys are others shuts it out, once the service is told to look.
    std::fs::write(&keys, KEY_SET.replace("rxiM", "rxiN").replace("IMqaI", "IMqaJ")).unwrap();
    locked.service.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("the keys are read again", PATIENCE, || locked.service.log().contains("read again")).await;
    assert_eq!(locked.ask(Some(OF_ANA), "POST", "/tools", "{}").await.0, 401);
}

#[tokio::test]
async fn a_key_may_be_asked_for_before_there_is_one() {
    let service = Launch::new().limits().memory().set("AUTH__REQUIRED", "always").start().await;
    assert_eq!(service.rest("POST", "/tools", "{}").await.0, 401);
    assert_eq!(service.rest("POST", "/keys", r#"{"name":"n","scopes":["admin"]}"#).await.0, 401);
    assert_eq!(service.rest("GET", "/healthz", "").await.0, 200);
}

#[tokio::test]
async fn a_key_that_is_bound_to_ids_steps_over_none_of_them() {
    let locked = Locked::start().await;
    for id in ["bound:1.0.0", "bound:2.0.0"] {
        locked.create(&tool(id, shell("printf 1"))).await;
    }
    let (key, _) = locked.key(&["execute"], json!({ "ids": ["bound:1.*"] })).await;
    for name in ["bound", "bound:latest", "bound:1"] {
        let path = format!("/tool/{name}/execute?wait=30");
        let (status, answer) = locked.ask(Some(&key), "POST", &path, "{}").await;
        assert_eq!((status, &answer["data"]["tool_id"]), (200, &json!("bound:1.0.0")), "{name}: {answer}");
    }
    assert_eq!(locked.ask(Some(&key), "POST", "/tool/bound:2/execute", "{}").await.0, 404);
    // Another key would be bound to nothing, and so would who is left when the others are gone.
    let (bound, _) = locked.key(&["admin"], json!({ "ids": ["bound:1.*"] })).await;
    let (_, other) = locked.key(&["read"], json!({})).await;
    let wanted = json!({ "name": "more", "scopes": ["admin"] }).to_string();
    assert_eq!(locked.ask(Some(&bound), "POST", "/keys", &wanted).await.0, 403);
    assert_eq!(locked.ask(Some(&bound), "DELETE", &format!("/keys/{other}"), "").await.0, 403);
}

#[tokio::test]
async fn a_key_that_is_bound_to_ids_registers_nothing_else_by_the_name_of_one() {
    let document = json!({
        "openapi": "3.1.0", "info": { "title": "T", "version": "3.0.0" }, "servers": [{ "url": "http://127.0.0.1:1" }],
        "paths": { "/a": { "get": { "operationId": "one", "responses": {} } } }
    });
    let source = Server::start(move |_| Answer::Json(200, document.clone())).await;
    let sources = format!(r#"[{{name = "api", openapi = "{}", allow_private = true}}]"#, source.url("/"));
    let locked = Locked::on(Launch::new().limits().memory().set("SOURCES", sources).start().await).await;
    let (key, _) = locked.key(&["read", "write"], json!({ "ids": ["one"] })).await;
    let (status, answer) = locked.ask(Some(&key), "POST", "/function/register/one", "").await;
    assert_eq!((status, &answer["code"]), (403, &json!("forbidden")), "{answer}");
    assert_eq!(locked.ask(Some(&locked.admin), "GET", "/function/one:3.0.0", "").await.0, 404);
    let (key, _) = locked.key(&["read", "write"], json!({ "ids": ["one*"] })).await;
    let (status, answer) = locked.ask(Some(&key), "POST", "/function/register/one", "").await;
    assert_eq!((status, &answer["data"]["function_id"]), (201, &json!("one:3.0.0")), "{answer}");
}

#[tokio::test]
async fn who_waits_for_an_outcome_is_told_nothing_of_it_once_its_key_is_revoked() {
    let locked = Locked::start().await;
    let (key, id) = locked.key(&["execute"], json!({})).await;
    let gate = Gate::new();
    locked.create(&tool("wait", gate.program("printf 1"))).await;
    let waiting = locked.ask(Some(&key), "POST", "/tool/wait/execute?wait=30", "{}");
    let revoking = async {
        let is_running = |_, answer: &Value| answer["data"][0]["state"] == "running";
        locked.until(&locked.admin, "/executions", is_running).await;
        locked.revoke(&id).await;
    };
    let ((status, answer), ()) = tokio::join!(waiting, revoking);
    assert_eq!((status, &answer["code"]), (401, &json!("unauthorized")), "{answer}");
    gate.open();
    let has_ended = |_, answer: &Value| answer["data"][0]["state"] == "succeeded";
    locked.until(&locked.admin, "/executions", has_ended).await;
}
