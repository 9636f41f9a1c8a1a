//! Where programs come from: archives, folders and addresses; and that what was registered is what runs.

use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::{accepted, in_catalog, put_source, tool};
use crate::server::{Answer, Asked, Server};
use crate::service::{Launch, PATIENCE, Service};

/// The metadata of a source that tells by its name how it runs.
fn source(url: &str) -> Value {
    json!({ "source_url": url })
}

fn entry(url: &str, entrypoint: &str) -> Value {
    json!({ "source_url": url, "entrypoint": entrypoint })
}

async fn output(service: &Service, id: &str) -> Value {
    service.run("tool", id, json!({})).await.output().clone()
}

/// A script that gives this number.
fn giving(number: u32) -> String {
    format!("printf {number}\n")
}

/// A script that gets its word from a file beside its folder.
const SPEAKING: &str = r#". "$(dirname "$0")/../lib/word.sh"; printf '{"said":"%s"}' "$WORD""#;

/// Packs the folder `source` in both ways.
const PACK: &str = r#"
import tarfile, zipfile

names = ["bin/run.sh", "lib/word.sh"]
with zipfile.ZipFile("packed.zip", "w", zipfile.ZIP_DEFLATED) as packed:
    for name in names:
        packed.write("source/" + name, name)
with tarfile.open("packed.tar.gz", "w:gz") as packed:
    for name in names:
        packed.add("source/" + name, name)
"#;

#[tokio::test]
async fn archives_and_folders_run_by_an_entrypoint_inside_them() {
    let service = Service::start().await;
    put_source(&service, "source/bin/run.sh", SPEAKING);
    put_source(&service, "source/lib/word.sh", "WORD=hello\n");
    in_catalog(&service, PACK);
    for url in ["packed.zip", "packed.tar.gz", "source"] {
        service.create(&tool(url, entry(url, "bin/run.sh"))).await;
        assert_eq!(output(&service, url).await, json!({ "said": "hello" }), "{url}");
    }
    for (id, mut metadata) in [
        ("nothing", source("packed.zip")),
        ("missing", entry("packed.zip", "bin/missing.sh")),
        ("outside", entry("packed.zip", "../run.sh")),
        ("folder", entry("packed.zip", "bin")),
    ] {
        metadata["runtime"] = json!("script");
        service.create(&tool(id, metadata)).await;
        let talk = service.run("tool", id, json!({})).await;
        let (error, code) = talk.error();
        assert_eq!(code, "not_startable", "{id}: {error}");
        assert!(error.contains("packed.zip"), "{id}: {error}");
    }
}

#[tokio::test]
async fn a_folder_of_this_machine_is_a_root_when_it_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("own.sh"), giving(7)).unwrap();
    let place = folder.path().join("own.sh").display().to_string();
    let roots = json!([folder.path()]).to_string();
    let service = Launch::new().set("ARTIFACTS__ROOTS", roots).start().await;
    for (id, url) in [("by-name", "own.sh".to_owned()), ("by-path", place.clone())] {
        service.create(&tool(id, source(&url))).await;
        assert_eq!(output(&service, id).await, json!(7), "{id}");
    }
    let elsewhere = Service::start().await;
    let body = tool("by-path", source(&place)).to_string();
    let (status, answer) = elsewhere.rest("POST", "/tool", &body).await;
    assert_eq!((status, &answer["details"]["field"]), (400, &json!("source_url")), "{answer}");
}

/// A server whose answers have this status while it stands, and give the script.
async fn serving(status: u16, script: String) -> (Server, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let now = Arc::clone(&status);
    let handler = move |_: &Asked| Answer::Text(now.load(Ordering::Relaxed), script.clone());
    (Server::start(handler).await, status)
}

fn private() -> Launch {
    Launch::new().set("ARTIFACTS__ALLOW_PRIVATE", true)
}

#[tokio::test]
async fn a_source_from_an_address_is_fetched_when_it_is_registered_and_kept() {
    let (server, status) = serving(200, giving(3)).await;
    let service = private().start().await;
    service.create(&tool("fetched", source(&server.url("/fetched.sh")))).await;
    assert_eq!(server.asked().len(), 1);
    status.store(404, Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(output(&service, "fetched").await, json!(3));
    }
    assert_eq!(server.asked().len(), 1, "it was kept");
}

#[tokio::test]
async fn a_redirect_is_followed_and_a_missing_source_is_refused() {
    let handler = |asked: &Asked| match asked.path.as_str() {
        "/moved.sh" => Answer::Redirect("/here.sh".to_owned()),
        "/here.sh" => Answer::Text(200, giving(4)),
        _ => Answer::Text(404, "nothing".to_owned()),
    };
    let server = Server::start(handler).await;
    let service = private().start().await;
    service.create(&tool("moved", source(&server.url("/moved.sh")))).await;
    assert_eq!(output(&service, "moved").await, json!(4));
    let body = tool("missing", source(&server.url("/missing.sh"))).to_string();
    let (status, answer) = service.rest("POST", "/tool", &body).await;
    assert_eq!((status, &answer["details"]["field"]), (400, &json!("source_url")), "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("404"), "{answer}");
}

#[tokio::test]
async fn a_definition_registers_without_its_source_and_runs_once_that_is_there() {
    let (server, status) = serving(503, giving(5)).await;
    let service = private().start().await;
    service.create(&tool("late", source(&server.url("/late.sh")))).await;
    let talk = service.run("tool", "late", json!({})).await;
    let (error, code) = talk.error();
    assert_eq!(code, "not_startable");
    assert!(error.contains("503"), "{error}");
    status.store(200, Ordering::Relaxed);
    assert_eq!(output(&service, "late").await, json!(5));
}

/// A server that has nothing at first, and then answers nobody until it is released.
async fn holding(script: String) -> (Server, Sender<()>) {
    let (release, released) = channel::<()>();
    let (is_first, released) = (Mutex::new(true), Mutex::new(released));
    let handler = move |_: &Asked| {
        if std::mem::take(&mut *is_first.lock().unwrap()) {
            return Answer::Text(503, String::new());
        }
        // An error means that the sender is gone.
        let _ = tokio::task::block_in_place(|| released.lock().unwrap().recv());
        Answer::Text(200, script.clone())
    };
    (Server::start(handler).await, release)
}

/// Waits until that many scripts are under way.
async fn are_running(service: &Service, scripts: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, answer) = service.rest("GET", "/system", "").await;
        let queue = &answer["data"]["tree"]["queues"]["script"];
        if queue["running"].as_u64() == Some(scripts) {
            return;
        }
        assert!(Instant::now() < deadline, "{queue}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_first_executions_share_one_fetch() {
    let (server, release) = holding(giving(6)).await;
    let service = private().set("POOLS__SCRIPT__MAX", 8).start().await;
    service.create(&tool("shared", source(&server.url("/shared.sh")))).await;
    assert_eq!(server.asked().len(), 1, "it has nothing yet");
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(accepted(&service, "shared", json!({}), json!({})).await.0);
    }
    are_running(&service, 8).await;
    drop(release);
    for socket in sockets {
        let talk = socket.rest().await;
        assert_eq!(talk.last()["output"], json!(6), "{talk:?}");
    }
    assert_eq!(server.asked().len(), 2, "{:?}", server.asked());
}

#[tokio::test]
async fn what_was_registered_runs_on_when_its_source_changed_or_vanished() {
    let service = Service::start().await;
    put_source(&service, "pinned.sh", giving(1));
    put_source(&service, "folder/run.sh", giving(1));
    service.create(&tool("file", source("pinned.sh"))).await;
    service.create(&tool("folder", entry("folder", "run.sh"))).await;
    let both = async |service: &Service| (output(service, "file").await, output(service, "folder").await);
    let first = (json!(1), json!(1));
    put_source(&service, "pinned.sh", giving(2));
    put_source(&service, "folder/run.sh", giving(2));
    assert_eq!(both(&service).await, first);
    std::fs::remove_file(service.path("data/catalog/pinned.sh")).unwrap();
    std::fs::remove_dir_all(service.path("data/catalog/folder")).unwrap();
    assert_eq!(both(&service).await, first);
    let folder = service.folder();
    drop(service);
    let service = Launch::on(folder).start().await;
    assert_eq!(both(&service).await, first, "after a restart");
}

/// The kept file of that name.
fn kept(service: &Service, name: &str) -> std::path::PathBuf {
    let artifacts = std::fs::read_dir(service.path("data/artifacts")).unwrap().flatten();
    let files = artifacts.map(|artifact| artifact.path().join(name));
    let mut found: Vec<_> = files.filter(|file| Path::exists(file)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[tokio::test]
async fn a_kept_source_that_was_tampered_with_does_not_run() {
    let service = Service::start().await;
    put_source(&service, "pinned.sh", giving(1));
    service.create(&tool("pinned", source("pinned.sh"))).await;
    let (folder, kept) = (service.folder(), kept(&service, "pinned.sh"));
    drop(service);
    std::fs::remove_file(&kept).unwrap();
    std::fs::write(&kept, giving(9)).unwrap();
    let service = Launch::on(folder).start().await;
    // The original is still what was registered.
    assert_eq!(output(&service, "pinned").await, json!(1));
}
