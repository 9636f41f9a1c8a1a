//! Sources that are refused when they are registered, each with a sentence and the field; nothing of them is kept.

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::program::{in_catalog, put_source, tool};
use crate::server::{Answer, Server};
use crate::service::{Launch, Service};

/// The sentence and the field of a refusal.
async fn refused(service: &Service, metadata: Value) -> (String, String) {
    let before = kept(service);
    let body = tool("refused", metadata).to_string();
    let (status, answer) = service.rest("POST", "/tool", &body).await;
    assert_eq!((status, &answer["code"]), (400, &json!("invalid")), "{answer}");
    assert_eq!(kept(service), before, "something of it was kept");
    assert_eq!(service.rest("GET", "/tool/refused", "").await.0, 404);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&answer["error"]), text(&answer["details"]["field"]))
}

/// What is kept of all sources.
fn kept(service: &Service) -> Vec<String> {
    let entries = std::fs::read_dir(service.path("data/artifacts")).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn entry(url: &str) -> Value {
    json!({ "runtime": "script", "source_url": url, "entrypoint": "run.sh" })
}

#[tokio::test]
async fn a_private_address_is_refused_unless_it_is_allowed() {
    let server = Server::start(|_| Answer::Text(200, "printf 1".to_owned())).await;
    let service = Launch::new().guarded().start().await;
    let port = server.address.port();
    for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1"] {
        let metadata = json!({ "source_url": format!("http://{host}:{port}/script.sh") });
        let (error, field) = refused(&service, metadata).await;
        assert_eq!(field, "source_url", "{host}: {error}");
        assert!(error.contains("allow_private"), "{host}: {error}");
    }
    assert!(server.asked().is_empty(), "{:?}", server.asked());
}

#[tokio::test]
async fn a_redirect_to_another_scheme_is_refused() {
    let server = Server::start(|_| Answer::Redirect("file:///etc/passwd".to_owned())).await;
    let service = Launch::new().set("ARTIFACTS__ALLOW_PRIVATE", true).start().await;
    let (error, field) = refused(&service, json!({ "source_url": server.url("/script.sh") })).await;
    assert_eq!(field, "source_url", "{error}");
    let (error, _) = refused(&service, json!({ "source_url": "ftp://example.org/script.sh" })).await;
    assert!(error.contains("http"), "{error}");
}

#[tokio::test]
async fn a_source_with_another_hash_is_refused() {
    let service = Service::start().await;
    put_source(&service, "script.sh", "printf 1");
    // `printf 'printf 1' | sha256sum`
    let right = "2286e731304ebf20ccd0e2d32fe26880a999173dabcfb28b12f6d673336a8ce4";
    let wrong = right.replace('2', "3");
    let (error, field) = refused(&service, json!({ "source_url": "script.sh", "sha256": wrong })).await;
    assert_eq!(field, "sha256", "{error}");
    assert!(error.contains(right), "{error}");
    for (id, hash) in [("lower", right.to_owned()), ("upper", right.to_uppercase())] {
        service.create(&tool(id, json!({ "source_url": "script.sh", "sha256": hash }))).await;
        assert_eq!(*service.run("tool", id, json!({})).await.output(), json!(1));
    }
}

/// Archives that lead out of their folder, or hold what is no file.
const HARMFUL: &str = r#"
import io, tarfile, zipfile

def tar(name, entry, kind, target, content=b""):
    with tarfile.open(name, "w:gz") as packed:
        info = tarfile.TarInfo(entry)
        info.type, info.linkname, info.size = kind, target, len(content)
        packed.addfile(info, io.BytesIO(content))
        run = tarfile.TarInfo("run.sh")
        packed.addfile(run, io.BytesIO())

slips = {"slip.zip": "../slipped.sh", "deep.zip": "a/../../slipped.sh", "root.zip": "/tmp/slipped.sh"}
for name, entry in slips.items():
    with zipfile.ZipFile(name, "w") as packed:
        packed.writestr(entry, "printf 1")
        packed.writestr("run.sh", "printf 1")
tar("slip.tar.gz", "../slipped.sh", tarfile.REGTYPE, "", b"printf 1")
tar("link.tar.gz", "out", tarfile.SYMTYPE, "/etc")
tar("up.tar.gz", "out", tarfile.SYMTYPE, "../../..")
tar("hard.tar.gz", "out", tarfile.LNKTYPE, "/etc/passwd")
tar("fifo.tar.gz", "out", tarfile.FIFOTYPE, "")
tar("device.tar.gz", "out", tarfile.CHRTYPE, "")
open("broken.zip", "w").write("nonsense")
open("broken.tar.gz", "w").write("nonsense")
"#;

#[tokio::test]
async fn an_archive_that_leads_out_of_its_folder_is_refused() {
    let service = Service::start().await;
    in_catalog(&service, HARMFUL);
    for url in [
        "slip.zip",
        "deep.zip",
        "root.zip",
        "slip.tar.gz",
        "link.tar.gz",
        "up.tar.gz",
        "hard.tar.gz",
        "fifo.tar.gz",
        "device.tar.gz",
        "broken.zip",
        "broken.tar.gz",
    ] {
        let (error, field) = refused(&service, entry(url)).await;
        println!("{url}: {error}");
        assert_eq!(field, "source_url", "{url}: {error}");
        assert!(!error.contains("/data/"), "{url}: {error}");
    }
    for place in ["data/artifacts/slipped.sh", "data/slipped.sh", "slipped.sh"] {
        assert!(!service.path(place).exists(), "{place}");
    }
}

#[tokio::test]
async fn what_is_under_no_root_is_refused() {
    let service = Service::start().await;
    std::fs::write(service.path("outside.sh"), "printf 1").unwrap();
    let link = service.path("data/catalog/link.sh");
    std::os::unix::fs::symlink(service.path("outside.sh"), link).unwrap();
    for url in ["../../outside.sh", "/etc/passwd", "file:///etc/passwd", "link.sh", "missing.sh"] {
        let (error, field) = refused(&service, json!({ "source_url": url })).await;
        assert_eq!(field, "source_url", "{url}: {error}");
    }
}

/// A file, a folder and an archive of more than a MiB; packed, the last is small.
const LARGE: &str = r#"
import os, zipfile

open("large.sh", "w").write("x" * (2 << 20))
os.makedirs("large")
for name in ["a", "b", "run.sh"]:
    open("large/" + name, "w").write("x" * (400 << 10))
with zipfile.ZipFile("large.zip", "w", zipfile.ZIP_DEFLATED) as packed:
    packed.writestr("run.sh", "x" * (2 << 20))
"#;

#[tokio::test]
async fn a_source_that_is_too_large_is_refused() {
    let server = Server::start(|_| Answer::Text(200, "#".repeat(2 << 20))).await;
    let launch = Launch::new().set("ARTIFACTS__MAX_MB", 1).set("ARTIFACTS__ALLOW_PRIVATE", true);
    let service = launch.start().await;
    in_catalog(&service, LARGE);
    let address = server.url("/large.sh");
    for metadata in [
        json!({ "source_url": "large.sh" }),
        json!({ "source_url": address }),
        entry("large"),
        entry("large.zip"),
    ] {
        let (error, field) = refused(&service, metadata).await;
        assert_eq!(field, "source_url", "{error}");
        assert!(error.contains("1 MiB"), "{error}");
    }
}

#[tokio::test]
async fn an_address_where_nobody_answers_is_no_refusal() {
    let service = Launch::new().set("ARTIFACTS__ALLOW_PRIVATE", true).start().await;
    // Nobody has this port once it was let go.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/script.sh");
    service.create(&tool("unreachable", json!({ "source_url": url }))).await;
    let talk = service.run("tool", "unreachable", json!({})).await;
    let (error, code) = talk.error();
    assert_eq!(code, "not_startable");
    assert!(error.contains("cannot be reached"), "{error}");
}
