//! A load whose programs write down that they ran, and clients that write down what they were told: whether the two and
//! the service's own records agree, whatever died meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::program::{shell, tool};
use crate::service::{Service, request};
use crate::socket::{Socket, is_final};

/// The tools: one that may run once only, and one that may run again.
const TOOLS: [&str; 2] = ["once", "again"];

/// How long all that was accepted may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a client that lost its service waits before it looks for the next one.
const PAUSE: Duration = Duration::from_millis(2);

/// What clients were told and programs did.
pub struct Ledger {
    folder: TempDir,
    service: watch::Sender<Option<SocketAddr>>,
    /// By uuid: which tool, and the final frame where one was heard.
    seen: Mutex<BTreeMap<String, Seen>>,
    requests: AtomicUsize,
    is_over: AtomicBool,
}

#[derive(Debug)]
struct Seen {
    tool: &'static str,
    last: Option<Value>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Account {
    /// How many uuids were seen.
    pub seen: usize,
    /// How many of them were told their outcome on their own connection.
    pub told: usize,
    /// How they ended.
    pub states: BTreeMap<String, usize>,
    /// What is wrong.
    pub faults: Vec<String>,
}

impl Ledger {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            folder: tempfile::tempdir().unwrap(),
            service: watch::Sender::new(None),
            seen: Mutex::default(),
            requests: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        })
    }

    /// Registers the tools. Each writes its name and its execution with O_SYNC before it answers.
    pub async fn register(&self, service: &Service) {
        let file = self.folder.path().join("ledger");
        std::fs::write(&file, "").unwrap();
        let script = format!(
            r#"echo "$ORG_DEFINITION $ORG_EXECUTION" |
               dd of={} oflag=append,sync conv=notrunc status=none && printf '{{"ran":true}}'"#,
            file.display()
        );
        for name in TOOLS {
            let mut metadata = shell(&script);
            metadata["idempotent"] = json!(name == "again");
            service.create(&tool(name, metadata)).await;
        }
    }

    /// Clients turn to this service from now on.
    pub fn serve(&self, service: &Service) {
        self.service.send_replace(Some(service.websocket));
    }

    /// How many uuids were seen.
    pub fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// That many clients at a time, each with one request after the other, until it is over.
    pub fn clients(self: &Arc<Self>, width: usize) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for number in 0..width {
            let (ledger, tool) = (Arc::clone(self), TOOLS[number % TOOLS.len()]);
            clients.spawn(async move {
                while !ledger.is_over.load(Ordering::Relaxed) {
                    if ledger.request(tool).await.is_none() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
        }
        clients
    }

    /// No new requests.
    pub async fn end(&self, clients: JoinSet<()>) {
        self.is_over.store(true, Ordering::Relaxed);
        clients.join_all().await;
    }

    /// None where there is no service.
    async fn request(&self, tool: &'static str) -> Option<()> {
        let address = (*self.service.borrow())?;
        let mut socket = Socket::open(address, "/tool").await.ok()?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        socket.send(&request("tool", tool, json!({}))).await;
        let mut uuid = None::<String>;
        while let Some(frame) = socket.frame().await {
            if let Some(accepted) = frame["uuid"].as_str() {
                uuid = Some(accepted.to_owned());
                let fresh = self.seen.lock().unwrap().insert(accepted.to_owned(), Seen { tool, last: None });
                assert!(fresh.is_none(), "{accepted} was given twice");
            }
            if is_final(&frame) {
                let mut all = self.seen.lock().unwrap();
                // A session that failed tells so, and nothing of its execution's outcome.
                if frame["code"] == "unavailable" {
                    return Some(());
                }
                if let Some(seen) = uuid.as_ref().and_then(|uuid| all.get_mut(uuid)) {
                    seen.last = Some(frame);
                }
                return Some(());
            }
        }
        // Without a final frame the service is gone.
        uuid.map(drop)
    }

    /// What the service, the clients and the programs say, once all that was accepted has ended.
    pub async fn account(&self, service: &Service) -> Account {
        let deadline = Instant::now() + PATIENCE;
        let lines = || std::fs::read_to_string(self.folder.path().join("ledger")).unwrap();
        let mut account = Account::default();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let mut records = BTreeMap::new();
        for uuid in seen.keys() {
            let record = loop {
                let (status, answer) = service.rest("GET", &format!("/execution/{uuid}"), "").await;
                let state = answer["data"]["state"].as_str().unwrap_or_default();
                let is_open = status == 200 && (state == "queued" || state == "running");
                if !is_open || Instant::now() > deadline {
                    break answer["data"].clone();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            records.insert(uuid.as_str(), record);
        }
        let mut runs = BTreeMap::<(&str, &str), usize>::new();
        let lines = lines();
        for line in lines.lines() {
            let (tool, uuid) = line.split_once(' ').unwrap_or(("", line));
            *runs.entry((tool, uuid)).or_default() += 1;
        }
        for ((tool, uuid), times) in &runs {
            if *tool == "once" && *times > 1 {
                account.faults.push(format!("{uuid} may run once only, and ran {times} times"));
            }
        }
        for (uuid, Seen { tool, last }) in &seen {
            let record = &records[uuid.as_str()];
            let ran = runs.get(&(*tool, uuid.as_str())).copied().unwrap_or(0);
            account.seen += 1;
            account.told += usize::from(last.is_some());
            let state = record["state"].as_str().unwrap_or("unknown");
            *account.states.entry(format!("{tool} {state}")).or_default() += 1;
            let fault = match (state, last) {
                ("succeeded", Some(last)) if last["output"] != record["output"] => {
                    Some(format!("was told {last}, and the record is {record}"))
                }
                ("succeeded", _) if ran == 0 => Some("succeeded without having run".to_owned()),
                ("succeeded", _) => None,
                ("failed" | "interrupted" | "timed_out" | "cancelled", Some(last)) => (last["code"]
                    != record["code"])
                    .then(|| format!("was told {last}, and the record is {record}")),
                ("failed" | "interrupted" | "timed_out" | "cancelled", None) => None,
                _ => Some(format!("has no outcome: {record}")),
            };
            account.faults.extend(fault.map(|fault| format!("{uuid} ({tool}): {fault}")));
        }
        account
    }
}

impl Account {
    /// Nothing was lost and nothing ran that should not have.
    #[track_caller]
    pub fn assert_good(&self) {
        let some = self.faults[..self.faults.len().min(20)].join("\n");
        assert!(self.faults.is_empty(), "{} faults:\n{some}", self.faults.len());
        assert!(self.seen > 0, "nothing was accepted");
    }
}
