//! Power cuts and failing disks, by a library of the test's own that is preloaded into the service: it notes what fsync
//! made safe, and has fsync and write fail while it is told so.
//!
//! The model of a power cut: of each file what was written after the last fsync that succeeded is gone. Names survive.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::durable::{moment, ready};
use crate::ledger::Ledger;
use crate::program::{shell, tool};
use crate::service::{Launch, PATIENCE, Service, eventually};

/// How often the power is cut; `CUTS` says otherwise.
const CUTS: usize = 100;

/// How many clients there are at a time.
const WIDTH: usize = 16;

/// The preloaded library's memory of what is safe, and its orders.
struct Power {
    state: TempDir,
}

/// The library, compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("cut.c"), folder.path().join("cut.so"));
        fs::write(&source, include_str!("power/cut.c")).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let status = cc.status().expect("a C compiler, which building this project needs too");
        assert!(status.success(), "{status}");
        (folder, library)
    });
    library
}

impl Power {
    fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap() }
    }

    /// The service with the library in it.
    fn launch(&self, launch: Launch) -> Launch {
        let store = launch.path("data/store");
        launch
            .env("LD_PRELOAD", library().display())
            .env("POWER_FOLDER", store.display())
            .env("POWER_STATE", self.state.path().display())
    }

    /// From now on it fails in that way, until it is mended.
    fn fail(&self, how: &str) {
        fs::write(self.state.path().join(how), "").unwrap();
    }

    fn mend(&self, how: &str) {
        fs::remove_file(self.state.path().join(how)).unwrap();
    }

    /// Takes away what was not safe: how many bytes.
    fn cut(&self, store: &Path) -> u64 {
        let notes = fs::read_to_string(self.state.path().join("safe")).unwrap_or_default();
        let mut safe = HashMap::<&str, u64>::new();
        for line in notes.lines() {
            let Some((size, path)) = line.split_once(' ') else { continue };
            match (size, path.split_once('\t')) {
                ("RENAME", Some((from, to))) => {
                    let size = safe.remove(from).unwrap_or(0);
                    safe.insert(to, size);
                }
                _ => drop(safe.insert(path, size.parse().unwrap())),
            }
        }
        let mut lost = 0;
        for file in files(store) {
            let size = fs::metadata(&file).unwrap().len();
            let safe = safe.get(file.to_str().unwrap()).copied().unwrap_or(0);
            if size > safe {
                lost += size - safe;
                fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(safe).unwrap();
            }
        }
        lost
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// Cuts the power that often under load: what was lost, and what came of it.
async fn cuts(times: usize, change: impl Fn(Launch) -> Launch) -> (u64, crate::ledger::Account) {
    let seed = uuid::Uuid::now_v7().as_u128() as u64;
    println!("seed {seed}");
    let (power, ledger) = (Power::new(), Ledger::new());
    let mut service = change(power.launch(Launch::new().executors(4))).start().await;
    ledger.register(&service).await;
    ledger.serve(&service);
    let clients = ledger.clients(WIDTH);
    let (mut lost, mut starts, mut up) = (0, Vec::new(), Duration::ZERO);
    for round in 0..times {
        let life = moment(seed, round);
        tokio::time::sleep(life).await;
        up += life;
        service.signal(Signal::SIGKILL);
        service.exit().await;
        let folder = service.folder();
        drop(service);
        lost += power.cut(&folder.path().join("data/store"));
        let start = Instant::now();
        service = change(power.launch(Launch::on(folder).executors(4))).start().await;
        ready(&service).await;
        starts.push(start.elapsed());
        ledger.serve(&service);
    }
    ledger.end(clients).await;
    starts.sort();
    println!(
        "{times} power cuts took away {lost} bytes; {} requests, {:.0}/s while it was up; ready after {:.0?}, at worst {:.0?}",
        ledger.requests(),
        ledger.requests() as f64 / up.as_secs_f64(),
        starts[times / 2],
        starts[times - 1],
    );
    let account = ledger.account(&service).await;
    println!(
        "{} uuids seen, {} told their outcome at once: {:?}",
        account.seen, account.told, account.states
    );
    (lost, account)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_power_is_cut_nothing_that_was_told_is_lost() {
    let times = std::env::var("CUTS").map_or(CUTS, |cuts| cuts.parse().unwrap());
    let (_, account) = cuts(times, |launch| launch).await;
    account.assert_good();
}

/// That the test above can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_sync_is_found_out() {
    let (lost, account) = cuts(5, |launch| launch.env("ORG_EXECUTOR_STORE_SYNC", "never")).await;
    println!("found out by {} faults, as {:?}", account.faults.len(), account.faults.first());
    assert!(lost > 0 && !account.faults.is_empty(), "{account:?}");
}

/// Gives it work until it takes no more. What was taken in just before may end only when that can be recorded.
async fn refused(service: &Service, tool: &str) {
    loop {
        let (status, answer) = service.rest("POST", &format!("/tool/{tool}/execute"), "{}").await;
        match status {
            202 => {}
            _ => {
                return assert_eq!((status, answer["code"].as_str()), (503, Some("unavailable")), "{answer}");
            }
        }
    }
}

/// How many uuids were seen once all that is on its way has come: a client may read one after another was refused.
async fn settled(ledger: &Ledger) -> usize {
    let mut seen = ledger.seen();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        match std::mem::replace(&mut seen, ledger.seen()) {
            before if before == seen => return seen,
            _ => {}
        }
    }
}

/// A disk that fails under load, in that way: nothing is acknowledged that is not safe, reads go on, and once it works
/// again so does the service.
async fn survives(how: &str) {
    let (power, ledger) = (Power::new(), Ledger::new());
    let service = power.launch(Launch::new().executors(4)).start().await;
    ledger.register(&service).await;
    ledger.serve(&service);
    let clients = ledger.clients(WIDTH);
    for _ in 0..3 {
        let before = ledger.seen();
        eventually("work is done", PATIENCE, || ledger.seen() > before + 20).await;
        power.fail(how);
        tokio::time::timeout(PATIENCE, refused(&service, "once")).await.expect("work is refused");
        let talk = service.run("tool", "once", json!({})).await;
        assert_eq!(talk.refusal().1, "unavailable");
        let quiet = settled(&ledger).await;
        for _ in 0..5 {
            assert_eq!(service.rest("GET", "/tool/once", "").await.0, 200);
            assert_eq!(service.rest("GET", "/executions", "").await.0, 200);
            let (status, answer) = service.rest("POST", "/tool/once/execute", "{}").await;
            assert_eq!((status, answer["code"].as_str()), (503, Some("unavailable")), "{answer}");
        }
        assert_eq!(ledger.seen(), quiet, "accepted while nothing could be written");
        power.mend(how);
        let start = Instant::now();
        eventually("it takes work again", PATIENCE, || ledger.seen() > quiet).await;
        println!("{how}: work is taken {:.0?} after the disk works again", start.elapsed());
    }
    ledger.end(clients).await;
    let account = ledger.account(&service).await;
    println!("{} uuids seen: {:?}", account.seen, account.states);
    account.assert_good();
    assert_eq!(service.stop().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_work_and_loses_none() {
    survives("enospc").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_sync_refuses_work_and_loses_none() {
    survives("eio").await;
}

/// Who was told that an execution could not be recorded asks again with the same key, and it runs then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_what_was_refused_is_free_again() {
    let power = Power::new();
    let service = power.launch(Launch::new()).start().await;
    service.create(&tool("once", shell("echo 1"))).await;
    let ask = async |key: &str| {
        let url = service.url("/tool/once/execute?wait=20");
        let request = service.client().post(url).header("Idempotency-Key", key);
        let request = request.header("content-type", "application/json").body("{}");
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<serde_json::Value>().await.unwrap())
    };
    assert_eq!(ask("before").await.1["data"]["state"], "succeeded");
    power.fail("eio");
    for _ in 0..3 {
        let (status, answer) = ask("k").await;
        assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{answer}");
    }
    power.mend("eio");
    let ended = async {
        loop {
            match ask("k").await {
                (200, answer) => return answer,
                (status, answer) => assert_eq!(status, 503, "{answer}"),
            }
        }
    };
    let first = tokio::time::timeout(PATIENCE, ended).await.expect("it is taken again");
    assert_eq!(
        (&first["data"]["state"], &first["data"]["attempts"]),
        (&json!("succeeded"), &json!(1)),
        "{first}"
    );
    // From then on it is that one, also after a restart.
    assert_eq!(ask("k").await.1["data"]["uuid"], first["data"]["uuid"]);
    let folder = service.folder();
    assert_eq!(service.stop().await.code(), Some(0));
    let service = power.launch(Launch::on(folder)).start().await;
    let url = service.url("/tool/once/execute?wait=20");
    let request = service.client().post(url).header("Idempotency-Key", "k").body("{}");
    let again = request.header("content-type", "application/json").send().await.unwrap();
    assert_eq!(again.json::<serde_json::Value>().await.unwrap()["data"]["uuid"], first["data"]["uuid"]);
}

/// A small file system of its own, filled to the last byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_file_system_that_fills_up_refuses_work_and_loses_none() {
    let probe =
        Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output().unwrap();
    if !probe.status.success() {
        return println!(
            "skipped: no file system can be mounted here: {}",
            String::from_utf8_lossy(&probe.stderr)
        );
    }
    let ledger = Ledger::new();
    let launch = Launch::new().executors(4);
    let data: PathBuf = launch.path("data");
    fs::create_dir_all(&data).unwrap();
    let service = launch.in_small_file_system(&data, "size=48m").start().await;
    ledger.register(&service).await;
    service.create(&tool("large", shell("head -c 400000 /dev/zero | tr '\\0' x | sed 's/.*/\"&\"/'"))).await;
    ledger.serve(&service);
    let clients = ledger.clients(4);
    // As the service sees it.
    let ballast = PathBuf::from(format!("/proc/{}/root{}", service.pid(), data.join("ballast").display()));
    for _ in 0..2 {
        let before = ledger.seen();
        eventually("work is done", PATIENCE, || ledger.seen() > before + 20).await;
        fill(&ballast);
        tokio::time::timeout(PATIENCE, refused(&service, "large")).await.expect("work is refused");
        assert_eq!(service.rest("GET", "/tool/once", "").await.0, 200);
        let quiet = settled(&ledger).await;
        fs::remove_file(&ballast).unwrap();
        let start = Instant::now();
        eventually("it takes work again", PATIENCE, || ledger.seen() > quiet).await;
        println!("work is taken {:.0?} after there is room again", start.elapsed());
    }
    ledger.end(clients).await;
    let account = ledger.account(&service).await;
    println!("{} uuids seen: {:?}", account.seen, account.states);
    account.assert_good();
}

/// Writes until there is no room.
fn fill(file: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(file).unwrap();
    let mut block = vec![1; 1 << 20];
    while !block.is_empty() {
        if file.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
}

impl Launch {
    /// With a small file system at this folder, which nobody else sees.
    fn in_small_file_system(self, folder: &Path, options: &str) -> Self {
        let mount = format!("mount -t tmpfs -o {options} tmpfs '{}' && exec \"$0\" \"$@\"", folder.display());
        self.through(&["unshare", "-m", "sh", "-c", &mount])
    }
}
