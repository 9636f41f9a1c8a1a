//! The audit log, through the built binary: what stands in it, that nobody can forge a line of it, that whatever is done to
//! its store is found, and that it holds when the service is killed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use actors::audit::{GENESIS, Offline, hash};
use actors::settings::Settings;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::client::client;
use crate::program::{Gate, shell, tool};
use crate::service::{Launch, PATIENCE, Service, eventually, request};
use crate::socket::Socket;

/// One call with a key, or without.
async fn ask(service: &Service, key: Option<&str>, method: &str, path: &str, body: &str) -> (u16, String) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = service.client().request(method, service.url(path));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    if !body.is_empty() {
        let declared = if path.contains("/import") { "application/x-ndjson" } else { "application/json" };
        request = request.header("content-type", declared).body(body.to_owned());
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// The entries, after their chain was checked line by line as anybody can who has the export.
fn read(text: &str) -> Vec<Value> {
    let mut before = GENESIS.to_owned();
    let lines = text.lines().enumerate().map(|(place, line)| {
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        let entry: Value = serde_json::from_str(line).expect(line);
        let own = entry["hash"].as_str().unwrap().to_owned();
        let body = format!("{}}}", line.strip_suffix(&format!(r#","hash":"{own}"}}"#)).expect(line));
        assert_eq!(hash(&before, &body), own, "{line}");
        assert_eq!(entry["sequence"], place as u64 + 1, "{line}");
        before = own;
        entry
    });
    lines.collect()
}

async fn entries(service: &Service, key: Option<&str>) -> Vec<Value> {
    let (status, text) = ask(service, key, "GET", "/audit", "").await;
    assert_eq!(status, 200, "{text}");
    read(&text)
}

/// Those of an action.
fn of<'a>(entries: &'a [Value], action: &str) -> Vec<&'a Value> {
    entries.iter().filter(|entry| entry["action"] == action).collect()
}

/// The only entry of an action and a subject.
#[track_caller]
fn one<'a>(entries: &'a [Value], action: &str, subject: &str) -> &'a Value {
    let found: Vec<_> = of(entries, action).into_iter().filter(|entry| entry["subject"] == subject).collect();
    assert_eq!(found.len(), 1, "{action} {subject}: {found:#?}");
    found[0]
}

async fn key(service: &Service, admin: Option<&str>, wanted: Value) -> (String, String) {
    let (status, text) = ask(service, admin, "POST", "/keys", &wanted.to_string()).await;
    assert_eq!(status, 201, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let field = |name: &str| answer["data"][name].as_str().unwrap().to_owned();
    (field("key"), field("id"))
}

/// What `audit` says of the folder of a service that ended: its exit code, and all that it printed.
async fn offline(folder: &Arc<tempfile::TempDir>, arguments: &[&str]) -> (Option<i32>, String) {
    let (status, said) = Launch::on(Arc::clone(folder)).output("audit", arguments).await;
    (status.code(), said)
}

#[tokio::test]
async fn whatever_changes_something_is_recorded_with_who_and_from_where() {
    let launch = Launch::new();
    let settings = launch.path("settings.toml");
    std::fs::write(&settings, "").unwrap();
    let launch = launch.env("ORG_EXECUTOR_CONFIG", settings.display());
    let service = launch.start().await;
    let (admin, admin_id) = key(&service, None, json!({ "name": "boss", "scopes": ["admin"] })).await;
    let (secret, admin) = (admin.rsplit('_').next().unwrap(), Some(admin.as_str()));
    let named = format!("key:{admin_id}");
    let definition = tool("made", shell("printf 1")).to_string();
    for (method, path, body, expected) in [
        ("POST", "/tool", definition.as_str(), 201),
        ("POST", "/tool", &definition, 409),
        ("PUT", "/tool/made", r#"{"tool_description":"x"}"#, 200),
        ("PUT", "/tool/made/revisions/1", "", 200),
        ("POST", "/tool/refresh/made", "", 409),
        ("POST", "/tool/register/unknown", "", 404),
        ("DELETE", "/tool/none", "", 404),
        ("POST", "/tools/import?dry_run=true", &tool("dry", shell("")).to_string(), 200),
        ("POST", "/tools/import", &format!("{}\n{}", tool("one", shell("")), tool("two", shell(""))), 200),
        ("POST", "/tool/made/execute?wait=20", "{}", 200),
        ("POST", "/tool/none/execute", "{}", 404),
        ("DELETE", "/tool/made", "", 200),
    ] {
        let (status, text) = ask(&service, admin, method, path, body).await;
        assert_eq!(status, expected, "{method} {path}: {text}");
    }
    let (_, other_id) =
        key(&service, admin, json!({ "name": "ci", "scopes": ["read"], "ids": ["a*"] })).await;
    let (status, text) = ask(&service, admin, "DELETE", &format!("/keys/{other_id}"), "").await;
    assert_eq!(status, 200, "{text}");
    std::fs::write(&settings, "pools.binary.max = 3").unwrap();
    service.signal(Signal::SIGHUP);
    eventually("it is applied", PATIENCE, || service.log().contains("resized")).await;
    std::fs::write(&settings, "pools.binary.min = 9\npools.binary.max = 3").unwrap();
    service.signal(Signal::SIGHUP);
    eventually("it is refused", PATIENCE, || service.log().contains("left as it is")).await;

    let mut all = entries(&service, admin).await;
    while of(&all, "service.reload").len() < 2 {
        // The log of the service tells a moment before the audit log does.
        all = entries(&service, admin).await;
    }
    let who = |entry: &Value| (entry["principal"].clone(), entry["address"].clone(), entry["door"].clone());
    let by_admin = (json!(named), json!("127.0.0.1"), json!("rest"));
    let made = one(&all, "key.create", &format!("key/{admin_id}"));
    assert_eq!(who(made), (json!("127.0.0.1"), json!("127.0.0.1"), json!("rest")), "nobody had a key yet");
    assert_eq!(made["detail"], json!({ "name": "boss", "scopes": ["admin"], "ids": null }));
    for (action, subject, result) in [
        ("definition.update", "tool/made", "ok"),
        ("definition.roll_back", "tool/made", "ok"),
        ("definition.refresh", "tool/made", "conflict"),
        ("definition.register", "tool/unknown", "not_found"),
        ("definition.import", "tool/one", "ok"),
        ("definition.import", "tool/two", "ok"),
        ("execution.accept", "tool/none", "not_found"),
        ("definition.delete", "tool/made", "ok"),
        ("definition.delete", "tool/none", "not_found"),
    ] {
        let entry = one(&all, action, subject);
        assert_eq!((who(entry), &entry["result"]), (by_admin.clone(), &json!(result)), "{entry}");
    }
    let created: Vec<_> = of(&all, "definition.create").iter().map(|entry| entry["result"].clone()).collect();
    assert_eq!(created, ["ok", "conflict"]);
    assert_eq!(one(&all, "definition.roll_back", "tool/made")["detail"], json!({ "revision": 3, "to": 1 }));
    assert!(of(&all, "definition.import").iter().all(|entry| entry["subject"] != "tool/dry"));
    let catalog: Vec<_> =
        of(&all, "definition.import").into_iter().filter(|entry| entry["principal"] == "service").collect();
    assert_eq!(catalog.len(), 7, "what the service brings along: {catalog:#?}");
    let revoked = one(&all, "key.revoke", &format!("key/{other_id}"));
    assert_eq!((who(revoked), &revoked["detail"]["ids"]), (by_admin, &json!(["a*"])));
    let reloads = of(&all, "service.reload");
    assert_eq!(reloads[0]["detail"]["changed"], json!(["pools"]));
    assert_eq!(reloads[1]["result"], "invalid");
    assert!(reloads[1]["detail"]["message"].as_str().unwrap().contains("pools.binary.min"), "{reloads:?}");
    assert_eq!((&all[0]["action"], &all[0]["door"]), (&json!("service.start"), &json!("service")));
    // No secret of a key is in it.
    assert!(!json!(all).to_string().contains(secret));

    let folder = service.folder();
    assert!(service.stop().await.success());
    let (code, text) = offline(&folder, &["export", "--offline"]).await;
    assert_eq!(code, Some(0), "{text}");
    let all = read(&text);
    assert_eq!(all.last().unwrap()["action"], "service.stop");
    let (status, said) =
        Launch::on(folder.clone()).output("key", &["create", "--offline", "late", "--scope", "read"]).await;
    assert!(status.success(), "{said}");
    let (_, text) = offline(&folder, &["export", "--offline"]).await;
    let all = read(&text);
    let last = all.last().unwrap();
    assert_eq!(
        (&last["action"], &last["door"], &last["detail"]["name"]),
        (&json!("key.create"), &json!("cli"), &json!("late"))
    );
    assert_eq!(last["principal"], format!("uid:{}", nix::unistd::getuid()));
}

#[tokio::test]
async fn executions_are_recorded_on_both_ports_from_their_acceptance_to_their_end() {
    let service = Launch::new().limits().start().await;
    let gate = Gate::new();
    service.create(&tool("good", shell("printf 1"))).await;
    service.create(&tool("bad", shell("exit 3"))).await;
    service.create(&tool("waits", gate.program("printf 1"))).await;
    service.run("tool", "good", json!({})).await;
    let (status, text) = ask(&service, None, "POST", "/tool/bad/execute?wait=20", "{}").await;
    assert_eq!(status, 200, "{text}");
    let mut session = service.socket("/session").await;
    let mut run = serde_json::from_str::<Value>(&request("tool", "waits", json!({}))).unwrap();
    run["id"] = 1.into();
    session.send(&run.to_string()).await;
    let uuid = session.frame().await.unwrap()["uuid"].as_str().unwrap().to_owned();
    session.send(&json!({ "id": 2, "cancel": uuid }).to_string()).await;
    let ended = [session.frame().await.unwrap(), session.frame().await.unwrap()];
    assert!(ended.iter().any(|frame| frame["code"] == "cancelled"), "{ended:?}");
    let refused = service.run("tool", "no\nsuch\u{1b}[2K\u{2028}\"tool", json!({})).await;
    assert_eq!(refused.last()["success"], false);

    let all = entries(&service, None).await;
    let mut told = Vec::new();
    for accepted in of(&all, "execution.accept").into_iter().filter(|entry| entry["result"] == "ok") {
        let ended = one(&all, "execution.end", accepted["subject"].as_str().unwrap());
        assert!(ended["sequence"].as_u64() > accepted["sequence"].as_u64());
        assert_eq!((&accepted["door"], &accepted["address"]), (&ended["door"], &ended["address"]));
        assert_eq!(accepted["address"], "127.0.0.1");
        let definition = accepted["detail"]["definition"].as_str().unwrap().to_owned();
        told.push((definition, accepted["door"].clone(), ended["result"].clone()));
    }
    told.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("tool/bad".to_owned(), json!("rest"), json!("failed")),
        ("tool/good".to_owned(), json!("websocket"), json!("succeeded")),
        ("tool/waits".to_owned(), json!("websocket"), json!("cancelled")),
    ];
    assert_eq!(told, expected);
    assert_eq!(one(&all, "execution.cancel", &uuid)["result"], "ok");
    let unknown = one(&all, "execution.accept", "tool/no\nsuch\u{1b}[2K\u{2028}\"tool");
    assert_eq!((&unknown["result"], &unknown["door"]), (&json!("not_found"), &json!("websocket")));
}

#[tokio::test]
async fn who_is_refused_is_recorded_and_who_knocks_often_is_counted() {
    let service = Launch::new().memory().start().await;
    let (admin, admin_id) = key(&service, None, json!({ "name": "a", "scopes": ["admin"] })).await;
    let wanted = json!({ "name": "r", "scopes": ["read", "execute"], "ids": ["mine-*"] });
    let (reader, reader_id) = key(&service, Some(&admin), wanted).await;
    let (gone, gone_id) = key(&service, Some(&admin), json!({ "name": "g", "scopes": ["read"] })).await;
    ask(&service, Some(&admin), "DELETE", &format!("/keys/{gone_id}"), "").await;
    let definition = tool("other", shell("printf 1")).to_string();
    assert_eq!(ask(&service, Some(&admin), "POST", "/tool", &definition).await.0, 201);

    let forged = format!("oe_{admin_id}_{}", "0".repeat(64));
    for (key, method, path, body, expected) in [
        (None, "POST", "/tools", "{}", 401),
        (Some(&gone), "POST", "/tools", "{}", 401),
        (Some(&reader), "DELETE", "/tool/mine-1", "", 403),
        (Some(&reader), "POST", "/keys", r#"{"name":"n","scopes":["admin"]}"#, 403),
        (Some(&reader), "GET", "/audit", "", 403),
        (Some(&reader), "GET", "/tool/other", "", 404),
        (Some(&reader), "POST", "/tool/other/execute", "{}", 404),
    ] {
        let (status, text) = ask(&service, key.map(String::as_str), method, path, body).await;
        assert_eq!(status, expected, "{method} {path}: {text}");
    }
    // What gathered until now is written, so that what follows is counted by itself.
    let before = entries(&service, Some(&admin)).await.len();
    for _ in 0..500 {
        assert_eq!(ask(&service, Some(&forged), "POST", "/tools", "{}").await.0, 401);
    }
    let headers = [("authorization", format!("Bearer {forged}"))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert!(Socket::open_with(service.websocket, "/tool", &headers).await.is_err());
    assert!(
        Socket::open_with(service.websocket, "/tool", &[("origin", "http://evil.example")]).await.is_err()
    );

    let all = entries(&service, Some(&admin)).await;
    let refused = |principal: &str, action: &str, code: &str| {
        let has = |entry: &&Value| {
            entry["principal"] == principal && entry["action"] == action && entry["result"] == code
        };
        assert!(all.iter().any(|entry| has(&entry)), "{principal} {action} {code}: {all:#?}");
    };
    let (reader, gone) = (format!("key:{reader_id}"), format!("key:{gone_id}"));
    refused("127.0.0.1", "enter", "unauthorized");
    refused(&gone, "enter", "unauthorized");
    refused(&reader, "definition.delete", "forbidden");
    refused(&reader, "key.create", "forbidden");
    refused(&reader, "audit.read", "forbidden");
    refused(&reader, "definition.read", "forbidden");
    refused(&reader, "execution.accept", "forbidden");
    refused("127.0.0.1", "enter", "forbidden");
    let knocks: Vec<&Value> = all
        .iter()
        .skip(before)
        .filter(|entry| entry["door"] == "rest" && entry["action"] == "enter")
        .collect();
    let count: u64 = knocks.iter().map(|entry| entry["detail"]["count"].as_u64().unwrap_or(1)).sum();
    assert_eq!(count, 500, "{knocks:#?}");
    assert!(knocks.len() < 100, "{} entries", knocks.len());
    // A key that was named without its secret is not who that was.
    assert!(knocks.iter().all(|entry| entry["principal"] == "127.0.0.1"), "{knocks:#?}");
    assert_eq!(knocks[0]["detail"]["named"], format!("key:{admin_id}"));
    assert!(all.iter().any(|entry| entry["door"] == "websocket" && entry["result"] == "unauthorized"));
    assert!(!json!(all).to_string().contains(&"0".repeat(64)), "what a key was shown with is not in it");
}

#[tokio::test]
async fn the_commands_verify_and_export() {
    let service = Launch::new().start().await;
    for number in 0..3 {
        service.create(&tool(&format!("t{number}"), shell("printf 1"))).await;
    }
    let exported = client(&service, "audit export").await;
    let all = read(exported.printed());
    let (first, last) = (all.first().unwrap(), all.last().unwrap());
    let said = client(&service, "audit verify").await;
    let head = last["hash"].as_str().unwrap();
    let sequence = all.len();
    said.assert_has_line(&format!("head {head} of the entry {sequence}"));
    assert!(said.stdout.starts_with(&format!("{sequence} entries, from 20")), "{said:?}");
    let noted = first["hash"].as_str().unwrap();
    let said = client(&service, &format!("--json audit verify --head {noted}")).await.json();
    assert_eq!((&said["intact"], &said["noted"]["sequence"]), (&json!(true), &json!(1)), "{said}");
    let foreign = "f".repeat(64);
    let said = client(&service, &format!("audit verify --head {foreign}")).await;
    assert!(said.code == Some(1) && said.stderr.contains("is not in the audit log"), "{said:?}");
    assert_eq!(client(&service, "audit verify --head x").await.code, Some(2));
    let at = last["at_ms"].as_u64().unwrap();
    let said = client(&service, &format!("audit export --from {at}")).await;
    assert!(
        said.printed()
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).unwrap()["at_ms"].as_u64() >= Some(at))
    );
    assert!(said.stdout.contains(head));
    let said = client(&service, &format!("audit export --to {}", first["at_ms"])).await;
    assert_eq!(said.printed(), "");
    let (_, rest) = ask(&service, None, "GET", &format!("/audit?after={}", sequence - 1), "").await;
    assert_eq!(rest.lines().count(), 1, "{rest}");
    for bad in ["/audit?after=x", "/audit?from_ms=-1", "/audit/verify?head=xyz"] {
        assert_eq!(ask(&service, None, "GET", bad, "").await.0, 400, "{bad}");
    }
    let (code, said) = offline(&service.folder(), &["verify", "--offline"]).await;
    assert!(code != Some(0) && said.contains("in use by another process"), "{said}");
    let folder = service.folder();
    assert!(service.stop().await.success());
    let (code, said) = offline(&folder, &["verify", "--offline", "--head", head]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("the noted head is that of the entry {sequence}")), "{said}");
}

#[tokio::test]
async fn whatever_is_done_to_the_store_is_found_at_its_place() {
    let service = Launch::new().start().await;
    for number in 0..10 {
        service.create(&tool(&format!("t{number}"), shell("printf 1"))).await;
        // Who reads the log has it written, so that each of these is a block of its own.
        ask(&service, None, "GET", "/audit", "").await;
    }
    let folder = service.folder();
    assert!(service.stop().await.success());
    let (code, said) = offline(&folder, &["verify", "--offline"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (_, text) = offline(&folder, &["export", "--offline"]).await;
    let all = read(&text);
    let head = all.last().unwrap()["hash"].as_str().unwrap();
    let last = all.len();
    let (changed, missing, later) = (last - 6, last - 4, last - 8);
    let hidden = format!(
        "UPDATE audit:{changed} SET entry = string::replace(entry, '127.0.0.1', '10.0.0.1'), \
         entry = string::replace(entry, 'definition', 'definitely')"
    );
    let restored = |sequence: usize| {
        let line = text.lines().nth(sequence - 1).unwrap();
        let hash = all[sequence - 1]["hash"].as_str().unwrap();
        let entry = format!("{}}}", line.strip_suffix(&format!(r#","hash":"{hash}"}}"#)).unwrap());
        format!("UPSERT audit:{sequence} SET entry = {}, hash = '{hash}'", json!(entry))
    };
    for (statement, place, problem, mend) in [
        (hidden, changed, "it was changed", restored(changed)),
        (format!("DELETE audit:{missing}"), missing, "is missing", restored(missing)),
        (format!("DELETE audit:{last}"), last, "is missing", restored(last)),
    ] {
        tamper(&folder, &statement).await;
        let (code, said) = offline(&folder, &["verify", "--offline"]).await;
        assert_eq!(code, Some(1), "{statement}: {said}");
        assert!(said.contains(&format!("is broken at {place}:")) && said.contains(problem), "{said}");
        tamper(&folder, &mend).await;
        let (code, said) = offline(&folder, &["verify", "--offline"]).await;
        assert_eq!(code, Some(0), "{mend}: {said}");
    }
    // Who takes the end away in order is found by who noted its head.
    let cut = last - 1;
    let hash = all[cut - 1]["hash"].as_str().unwrap();
    let statement = format!(
        "BEGIN; DELETE audit:{last}; UPDATE meta:audit SET sequence = {cut}, hash = '{hash}'; COMMIT;"
    );
    tamper(&folder, &statement).await;
    assert_eq!(offline(&folder, &["verify", "--offline"]).await.0, Some(0));
    let (code, said) = offline(&folder, &["verify", "--offline", "--head", head]).await;
    assert!(code == Some(1) && said.contains("is not in the audit log"), "{said}");
    // A service on a broken log goes on with it, and says where it is broken.
    tamper(&folder, &format!("DELETE audit:{later}")).await;
    let service = Launch::on(folder).start().await;
    service.create(&tool("later", shell("printf 1"))).await;
    let said = client(&service, "audit verify").await;
    assert!(
        said.code == Some(1)
            && said.stderr.contains(&format!("is broken at {later}: the entry {later} is missing")),
        "{said:?}"
    );
    let (_, text) = ask(&service, None, "GET", "/audit", "").await;
    assert!(text.contains("tool/later"), "{text}");
}

/// Does this to the store of a service that ended.
async fn tamper(folder: &Arc<tempfile::TempDir>, statement: &str) {
    let settings = settings(folder);
    let statement = statement.to_owned();
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_stack_size(16 << 20).enable_all().build().unwrap()
    };
    let tampering = std::thread::spawn(move || {
        let runtime = runtime();
        let done = runtime.spawn(async move {
            let log = Offline::open(&settings).await.unwrap();
            log.tamper(&statement).await.unwrap();
            log.close().await.unwrap();
        });
        runtime.block_on(done).unwrap();
    });
    tokio::task::spawn_blocking(move || tampering.join().unwrap()).await.unwrap();
}

/// The default settings of the engine, with the store of this folder.
fn settings(folder: &Arc<tempfile::TempDir>) -> Settings {
    let mut table: toml::Table = include_str!("../../config/default.toml").parse().unwrap();
    for edge in ["rest", "websocket", "tls", "log"] {
        table.remove(edge);
    }
    let mut settings: Settings = table.try_into().unwrap();
    settings.store.url = format!("surrealkv://{}", folder.path().join("data").display());
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_changes_at_once_are_all_there_once() {
    let service = Launch::new()
        .set("REST__MAX_CONNECTIONS_PER_ADDRESS", 2_000)
        .set("REST__MAX_CONNECTIONS", 2_000)
        .start()
        .await;
    let made = join_all((0..1_000).map(|number| {
        let service = &service;
        async move {
            let body = tool(&format!("at-once-{number}"), shell("printf 1")).to_string();
            let (status, text) = ask(service, None, "POST", "/tool", &body).await;
            assert_eq!(status, 201, "{text}");
        }
    }));
    made.await;
    let all = entries(&service, None).await;
    let subjects: Vec<&str> =
        of(&all, "definition.create").iter().map(|entry| entry["subject"].as_str().unwrap()).collect();
    let distinct: HashSet<&str> = subjects.iter().copied().collect();
    assert_eq!((subjects.len(), distinct.len()), (1_000, 1_000));
    assert_eq!(client(&service, "audit verify").await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_killed_under_load_leaves_a_chain_that_holds() {
    let mut folder = None;
    let mut noted = BTreeMap::new();
    for round in 0..3 {
        let service = folder.clone().map_or_else(Launch::new, Launch::on).start().await;
        if round == 0 {
            service.create(&tool("quick", shell("printf 1"))).await;
        }
        let service = Arc::new(service);
        let load: Vec<_> = (0..8)
            .map(|lane| {
                let service = Arc::clone(&service);
                tokio::spawn(async move {
                    for number in 0.. {
                        let body = tool(&format!("r{round}-{lane}-{number}"), shell("printf 1")).to_string();
                        let client = service.client();
                        let made =
                            client.post(service.url("/tool")).header("content-type", "application/json");
                        if made.body(body).send().await.is_err() {
                            return;
                        }
                        let ran = client.post(service.url("/tool/quick/execute?wait=20"));
                        if ran.header("content-type", "application/json").body("{}").send().await.is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        // A head that somebody noted is in the chain for good.
        let mut entries = 0;
        while entries < 100 {
            let (status, text) = ask(&service, None, "GET", "/audit/verify", "").await;
            assert_eq!(status, 200, "{text}");
            let report: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(report["data"]["intact"], true, "{report}");
            let head = &report["data"]["head"];
            entries = head["sequence"].as_u64().unwrap() - noted.keys().last().copied().unwrap_or(0);
            if entries >= 100 {
                noted.insert(head["sequence"].as_u64().unwrap(), head["hash"].as_str().unwrap().to_owned());
            }
        }
        service.signal(Signal::SIGKILL);
        for lane in load {
            lane.await.unwrap();
        }
        let kept = service.folder();
        drop(service);
        for (sequence, head) in &noted {
            let (code, said) = offline(&kept, &["verify", "--offline", "--head", head]).await;
            assert_eq!(code, Some(0), "{said}");
            assert!(said.contains(&format!("is that of the entry {sequence}")), "{said}");
        }
        folder = Some(kept);
    }
    let service = Launch::on(folder.unwrap()).start().await;
    let all = entries(&service, None).await;
    assert_eq!(of(&all, "service.start").len(), 4);
    let ended: BTreeSet<&str> =
        of(&all, "execution.end").iter().map(|entry| entry["subject"].as_str().unwrap()).collect();
    println!("{} entries, {} executions ended", all.len(), ended.len());
}

#[tokio::test]
async fn a_writer_that_fails_loses_nothing_and_writes_nothing_twice() {
    let service = Launch::new().start().await;
    for number in 0..8 {
        let made = tool(&format!("t{number}"), shell("printf 1"));
        let (_, panicked) = tokio::join!(service.create(&made), service.panic("audit"));
        // The first five come back at once, and the others after a while.
        panicked.unwrap();
    }
    let all = entries(&service, None).await;
    for number in 0..8 {
        one(&all, "definition.create", &format!("tool/t{number}"));
    }
    assert_eq!(client(&service, "audit verify").await.code, Some(0));
}

#[tokio::test]
async fn where_it_is_not_enabled_nothing_is_recorded() {
    let service = Launch::new().memory().set("AUDIT__ENABLED", "false").start().await;
    service.create(&tool("t", shell("printf 1"))).await;
    assert!(entries(&service, None).await.is_empty());
    assert_eq!(client(&service, "audit verify").await.code, Some(0));
}

#[tokio::test]
async fn where_there_is_no_store_none_is_made_to_be_looked_at() {
    let launch = Launch::new();
    let folder = launch.folder();
    for (command, words) in [
        ("audit", ["verify", "--offline"]),
        ("audit", ["export", "--offline"]),
        ("key", ["list", "--offline"]),
    ] {
        let (status, said) = Launch::on(folder.clone()).output(command, &words).await;
        assert!(!status.success() && said.contains("there is no store at `store.url`"), "{said}");
    }
    assert!(!folder.path().join("data").exists());
}
