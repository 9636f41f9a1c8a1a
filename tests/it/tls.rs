//! TLS on both ports, with a certificate that `openssl` makes for the test.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use actors::cryptography::provider;
use nix::sys::signal::Signal;
use reqwest::Certificate;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::Connector;

use crate::client::client_over_tls;
use crate::service::{Launch, PATIENCE, Service, eventually};

/// Makes a certificate for this machine and its key. None, which it says, where there is no `openssl`.
pub fn certify(folder: &Path, name: &str) -> Option<()> {
    let file = |ending: &str| folder.join(format!("{name}.{ending}")).display().to_string();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        // A certificate of an authority is none of a server.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-out", &file("pem"), "-keyout", &file("key")])
        .output();
    match made {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(())
        }
        Err(error) => {
            println!("SKIPPED: no certificate can be made: openssl: {error}");
            None
        }
    }
}

/// The settings that name these files.
pub fn settings_of(folder: &Path, certificate: &str, key: &str) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    format!("[tls]\ncertificate = {:?}\nkey = {:?}\n", file(certificate), file(key))
}

/// A service with the certificate `one`.
pub async fn served() -> Option<Service> {
    let launch = Launch::new().limits().memory();
    let folder = launch.path("");
    certify(&folder, "one")?;
    let settings = settings_of(&folder, "one.pem", "one.key");
    Some(launch.config(&settings).start().await)
}

/// A client that trusts this certificate and nothing else.
pub fn trusting(service: &Service, certificate: &str) -> reqwest::Client {
    let pem = std::fs::read(service.path(certificate)).unwrap();
    let certificate = Certificate::from_pem(&pem).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]);
    client.pool_max_idle_per_host(0).timeout(PATIENCE).build().unwrap()
}

/// The same for WebSockets.
pub fn connector(service: &Service, certificate: &str) -> Connector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(service.path(certificate)).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider().clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Connector::Rustls(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

async fn version(service: &Service, client: &reqwest::Client) -> reqwest::Result<String> {
    let answer = client.get(format!("https://{}/system", service.rest)).send().await?;
    let answer: Value = serde_json::from_str(&answer.text().await?).unwrap();
    Ok(answer["data"]["version"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn both_ports_speak_tls_and_nothing_else() {
    let Some(service) = served().await else { return };
    assert_eq!(version(&service, &trusting(&service, "one.pem")).await.unwrap(), env!("CARGO_PKG_VERSION"));
    let wanted = r#"{"name":"admin","scopes":["admin"]}"#;
    let https = trusting(&service, "one.pem");
    let made =
        https.post(format!("https://{}/keys", service.rest)).header("content-type", "application/json");
    let made: Value =
        serde_json::from_str(&made.body(wanted).send().await.unwrap().text().await.unwrap()).unwrap();
    let key = made["data"]["key"].as_str().unwrap();
    assert!(made["data"]["scopes"] == json!(["admin"]), "{made}");
    // The whole way through the binary: REST, and an execution over the WebSocket.
    let trusted = service.path("one.pem");
    let said = client_over_tls(&service, key, &trusted, "tool list").await;
    assert!(said.printed().contains("binary-increment-tool"), "{said:?}");
    let said = client_over_tls(&service, key, &trusted, "run tool binary-increment-tool {\"value\":1}").await;
    assert!(said.code == Some(0) && said.stdout.contains('2'), "{said:?}");
    let said = client_over_tls(&service, "", &trusted, "run tool binary-increment-tool {\"value\":1}").await;
    assert!(said.code == Some(1) && said.stderr.contains("asks for a key"), "{said:?}");

    for address in [service.rest, service.websocket] {
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut heard = Vec::new();
        // It may be reset as well as closed.
        let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut heard)).await.unwrap();
        assert!(!String::from_utf8_lossy(&heard).contains("HTTP"), "{heard:?}");
    }
    assert!(version(&service, &reqwest::Client::builder().no_proxy().build().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_changed_certificate_is_shown_without_a_restart() {
    let Some(service) = served().await else { return };
    let folder = service.path("");
    certify(&folder, "two").unwrap();
    std::fs::copy(service.path("one.pem"), service.path("old.pem")).unwrap();
    let (one, two) = (trusting(&service, "one.pem"), trusting(&service, "two.pem"));
    assert!(version(&service, &one).await.is_ok() && version(&service, &two).await.is_err());
    // One of both files is not enough: what is shown stays.
    std::fs::copy(service.path("two.key"), service.path("one.key")).unwrap();
    service.signal(Signal::SIGHUP);
    eventually("the certificate is refused", PATIENCE, || service.log().contains("was left as it is")).await;
    assert!(version(&service, &one).await.is_ok());
    std::fs::copy(service.path("two.pem"), service.path("one.pem")).unwrap();
    service.signal(Signal::SIGHUP);
    eventually("the certificate is read", PATIENCE, || service.log().contains("was read again")).await;
    assert!(version(&service, &two).await.is_ok());
    // Who knows the service already takes up where it was; who does not sees the new one.
    assert!(version(&service, &trusting(&service, "old.pem")).await.is_err());
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_given_up() {
    let launch = Launch::new()
        .memory()
        .set("WEBSOCKET__HANDSHAKE_TIMEOUT_MS", 2_000)
        .set("REST__HEADER_TIMEOUT_MS", 2_000);
    let folder = launch.path("");
    if certify(&folder, "one").is_none() {
        return;
    }
    let settings = settings_of(&folder, "one.pem", "one.key");
    let service = launch.config(&settings).start().await;
    for address in [service.rest, service.websocket] {
        let mut quiet = TcpStream::connect(address).await.unwrap();
        // The beginning of a record, and no more.
        quiet.write_all(&[22, 3, 1]).await.unwrap();
        let mut heard = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, quiet.read_to_end(&mut heard)).await.expect("it is given up");
    }
    assert!(version(&service, &trusting(&service, "one.pem")).await.is_ok());
}

#[tokio::test]
async fn what_does_not_fit_together_is_named_at_the_start() {
    let launch = Launch::new().memory();
    let folder = launch.path("");
    if certify(&folder, "one").is_none() || certify(&folder, "two").is_none() {
        return;
    }
    std::fs::write(folder.join("empty.pem"), "").unwrap();
    let on = launch.folder();
    for (certificate, key, part) in [
        ("one.pem", "two.key", "is not the key of"),
        ("none.pem", "one.key", "cannot be read"),
        ("one.pem", "one.pem", "cannot be read"),
        ("empty.pem", "one.key", "has no certificate in it"),
    ] {
        let settings = settings_of(&folder, certificate, key);
        let (status, said) = Launch::on(on.clone()).memory().config(&settings).refused().await;
        assert!(!status.success() && said.contains(part), "{certificate} {key}: {said}");
    }
}
