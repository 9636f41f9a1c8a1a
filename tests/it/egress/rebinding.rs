//! A name server of the test's own, whose names are public at one moment and this machine's at the next. The service runs
//! in a network of its own then, which only root can make.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener as Listener};
use std::sync::{Arc, Mutex};

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::DeniedListener;
use crate::network;
use crate::program::{function, tool};
use crate::server::{Answer, Server};
use crate::service::{Launch, Service};

/// An address of the whole internet, which is this machine's in its own network.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);

/// How often each way out is tried with a name that changes.
const TURNS: usize = 12;

/// Gives this thread a network and a view of the files of its own, in which names are asked of 127.0.0.53.
fn enter(resolv: &std::path::Path) -> Result<(), String> {
    network::enter(PUBLIC)?;
    fs::write(resolv, "nameserver 127.0.0.53\noptions timeout:1 attempts:1\n")
        .map_err(|error| error.to_string())?;
    let (target, none) = ("/etc/resolv.conf", None::<&str>);
    mount(Some(resolv), target, none, MsFlags::MS_BIND, none).map_err(|error| format!("{target}: {error}"))
}

/// How often each name was asked for in IPv4.
type Asked = Arc<Mutex<HashMap<String, usize>>>;

struct NameServer {
    asked: Asked,
    task: JoinHandle<()>,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.53:53").await.unwrap();
        let asked = Asked::default();
        let log = asked.clone();
        let task = tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut packet).await {
                if let Some(answer) = answer(&packet[..length], &log) {
                    socket.send_to(&answer, client).await.unwrap();
                }
            }
        });
        Self { asked, task }
    }

    /// How often a name was asked for.
    fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The answer to a question of the DNS (RFC 1035, 4).
fn answer(packet: &[u8], asked: &Asked) -> Option<Vec<u8>> {
    let (mut name, mut at) = (String::new(), 12);
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push_str(std::str::from_utf8(packet.get(at..at + length)?).ok()?);
        name.push('.');
        at += length;
    }
    let question = packet.get(12..at + 4)?;
    let kind = u16::from_be_bytes([packet[at], packet[at + 1]]);
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let found = match kind {
        1 => {
            let mut asked = asked.lock().unwrap();
            let turn = asked.entry(name.clone()).or_default();
            *turn += 1;
            addresses(&name, *turn)
        }
        28 => addresses(&name, 0),
        _ => Vec::new(),
    };
    let found: Vec<IpAddr> = found.into_iter().filter(|address| address.is_ipv4() == (kind == 1)).collect();
    let count = u8::try_from(found.len()).ok()?;
    let mut answer = [&packet[..2], &[0x85, 0x80, 0, 1, 0, count, 0, 0, 0, 0], question].concat();
    for address in found {
        // The question's name, its kind, for no time at all.
        answer.extend([
            0xc0,
            12,
            question[question.len() - 4],
            question[question.len() - 3],
            0,
            1,
            0,
            0,
            0,
            0,
        ]);
        match address {
            IpAddr::V4(address) => answer.extend([&[0, 4], &address.octets()[..]].concat()),
            IpAddr::V6(address) => answer.extend([&[0, 16], &address.octets()[..]].concat()),
        }
    }
    Some(answer)
}

/// What a name is at its nth turn.
fn addresses(name: &str, turn: usize) -> Vec<IpAddr> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    match name.split('.').next_back().unwrap_or_default() {
        "flip" if turn.is_multiple_of(2) => vec![loopback],
        "flip" => vec![PUBLIC.into()],
        "both" => vec![PUBLIC.into(), loopback],
        "swap" => vec![loopback, PUBLIC.into()],
        "private" => vec![loopback],
        "six" => vec![Ipv6Addr::LOCALHOST.into()],
        "mapped" => vec![Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()],
        "public" => vec![PUBLIC.into()],
        "internal" => vec![Ipv4Addr::new(169, 254, 169, 254).into()],
        _ => Vec::new(),
    }
}

/// In a thread that nothing else runs on, with all that it starts.
#[test]
fn a_name_that_turns_to_this_machine_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let resolv = folder.path().join("resolv.conf");
    let inside = std::thread::spawn(move || match enter(&resolv) {
        Err(why) => println!("SKIPPED: no network of its own can be made here: {why}"),
        Ok(()) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(rebind());
        }
    });
    inside.join().unwrap();
}

async fn rebind() {
    let names = NameServer::start().await;
    let public = Server::on(&format!("{PUBLIC}:0"), |_| Answer::Json(200, json!("public"))).await;
    let port = public.address.port();
    let denied = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    // Some machines have no IPv6.
    let denied = denied.into_iter().filter_map(|address| Listener::bind(address).ok());
    let denied: Vec<DeniedListener> = denied.map(DeniedListener::with).collect();
    let place = |name: &str, scheme: &str| format!("{scheme}://{name}:{port}/x");
    let mut sources = String::new();
    for turns in ["flip", "both", "swap", "private", "six", "mapped"] {
        for (key, path) in [("openapi", ""), ("mcp_url", ""), ("tool_url", "/{id}")] {
            let name = format!("{}.{turns}", key.replace('_', "-"));
            let url = place(&name, "http") + path;
            sources += &format!("[[sources]]\nname = \"{key}-{turns}\"\n{key} = \"{url}\"\n");
        }
    }
    let service = Launch::new().guarded().config(&sources).start().await;
    let mut there = 0;
    for turns in ["public", "flip", "both", "swap", "private", "six", "mapped"] {
        let (mut reached, mut refused) = (0, 0);
        for _ in 0..TURNS {
            for runtime in ["http", "websocket", "mcp"] {
                let scheme = if runtime == "websocket" { "ws" } else { "http" };
                let url = place(&format!("{runtime}.{turns}"), scheme);
                let error = called(&service, runtime, &url).await;
                if error.as_ref().is_some_and(|error| error.contains("resolves to a private address")) {
                    assert!(!error.unwrap().contains("127.0.0.1"));
                    refused += 1;
                } else {
                    reached += 1;
                }
            }
        }
        println!("{turns}: {reached} reached what is public, {refused} were refused");
        match turns {
            "public" => assert_eq!(refused, 0),
            "flip" => assert!(reached > 0 && refused >= TURNS, "{reached} {refused}"),
            _ => assert_eq!(reached, 0),
        }
        there += reached;
    }
    assert!(names.asked("http.flip") >= TURNS && names.asked("websocket.flip") >= TURNS);
    // The two that only come to be asked for by the service itself, and the sources.
    let url = place("metadata.google.internal", "http");
    let error = called(&service, "http", &url).await.unwrap();
    assert!(error.contains("`metadata.google.internal` resolves to a private address"), "{error}");
    for turns in ["flip", "both", "swap", "private", "six", "mapped"] {
        for _ in 0..TURNS {
            for (kind, key) in [("function", "openapi"), ("tool", "mcp_url")] {
                let (status, told) =
                    service.rest("POST", &format!("/{kind}s/import/{key}-{turns}"), "").await;
                assert_eq!(status, 502, "{told}");
            }
            let (status, told) = service.rest("POST", "/tool/register/nothing", "").await;
            assert_eq!(status, 502, "{told}");
            let metadata =
                json!({ "runtime": "script", "source_url": place(&format!("artifact.{turns}"), "http") });
            let (status, told) = service.rest("POST", "/tool", &tool("script", metadata).to_string()).await;
            match status {
                201 => assert_eq!(service.rest("DELETE", "/tool/script", "").await.0, 200),
                _ => assert!(told["error"].as_str().unwrap().contains("resolves to a private"), "{told}"),
            }
        }
    }
    println!("{} requests reached what is public, {there} of them by functions", public.asked().len());
    assert!(public.asked().len() >= TURNS);
    assert!(!denied.is_empty());
    for listener in &denied {
        assert_eq!(listener.connections(), 0, "{}", listener.address);
    }
}

/// Calls it once: what is wrong, if something is.
async fn called(service: &Service, runtime: &str, url: &str) -> Option<String> {
    // Who does come to a listener that is denied waits there.
    let metadata = json!({ "runtime": runtime, "url": url, "limits": { "timeout_ms": 5_000 } });
    let (kind, made) = match runtime {
        "mcp" => ("tool", tool("call", metadata)),
        _ => ("function", function("call", metadata)),
    };
    service.create(&made).await;
    let talk = service.run(kind, "call", json!({})).await;
    assert_eq!(service.rest("DELETE", &format!("/{kind}/call"), "").await.0, 200);
    talk.frames.last().and_then(|frame: &Value| Some(frame.get("error")?.as_str()?.to_owned()))
}
