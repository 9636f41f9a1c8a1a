//! The sandbox: what programs in a jail can get at, what they leave behind, and which level holds. Where the machine
//! gives no jail, that is said and nothing of it is tested.

use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::network;
use crate::program::{put_source, python, shell, tool};
use crate::service::{Launch, PATIENCE, Service, eventually};

mod probes;

use probes::{By, ESCAPES, LEAKS, Probe};

/// Nobody's user id, by custom.
const NOBODY: u32 = 65_534;

/// Programs that every user of the machine gets at.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// What a service's record of an execution says of its sandbox.
const LEVEL: &str = "sandbox";

/// The level of the sandbox that holds here, as the service tells.
async fn level(service: &Service) -> String {
    let (_, answer) = service.rest("GET", "/readyz", "").await;
    let held = &answer["data"]["sandbox"];
    if let Some(reason) = held["reason"].as_str() {
        eprintln!("SKIPPED: this machine gives no jail: {reason}");
    }
    held["level"].as_str().unwrap_or_else(|| panic!("no level: {answer}")).to_owned()
}

/// Whether programs run in jails here; said where they do not.
async fn is_isolated(service: &Service) -> bool {
    level(service).await == "isolated"
}

/// A shell and a Python that run what they are given.
fn runners() -> [Value; 2] {
    [("shell", "sh"), ("python", "python3")].map(|(id, program)| {
        let mut runner = tool(
            id,
            json!({ "runtime": "binary", "entrypoint": program, "args": ["-c", "{{script}}"], "output": "text" }),
        );
        runner["tool_metadata"]["limits"] = json!({ "timeout_ms": 20_000 });
        runner
    })
}

/// What programs are not to reach, around a service.
struct Surroundings {
    service: Service,
    victim: Child,
    shared: i32,
    metadata: u16,
    reached: Arc<AtomicUsize>,
    host: String,
}

/// At which address clouds tell a machine its secrets.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// What only the service and the test know.
const SECRET: &str = "oe-canary-5b1f0c";

/// A key of shared memory that the test makes.
const SHARED: i32 = 0x0e5b_1f0c;

impl Surroundings {
    /// In a network of this thread's own, in which the address of clouds' metadata is this machine's.
    async fn new(user: u32, level: &str) -> Option<Self> {
        // Shared memory of its own too, so that what the test makes is gone with it.
        let shared = unshare(CloneFlags::CLONE_NEWIPC).map_err(|error| error.to_string());
        if let Err(problem) = network::enter(METADATA).and(shared) {
            eprintln!("SKIPPED: no network of the test's own: {problem}");
            return None;
        }
        let mut launch = Launch::new().set("SANDBOX__LEVEL", level).env("PATH", PATH).env("CANARY", SECRET);
        let folder = launch.folder();
        std::fs::write(folder.path().join("secret.txt"), SECRET).unwrap();
        if user != 0 {
            launch = launch.program(copy_of_service(folder.path())).through(&[
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--",
            ]);
            give_away(folder.path(), user);
        }
        let service = launch.start().await;
        put_source(&service, "other.sh", format!("#!/bin/sh\n# {SECRET}\necho 1\n"));
        service.create(&tool("other", json!({ "source_url": "other.sh" }))).await;
        service.run("tool", "other", json!({})).await.output();
        for runner in runners() {
            service.create(&runner).await;
        }
        let reached = Arc::new(AtomicUsize::new(0));
        let by_path = UnixListener::bind(service.path("socket")).unwrap();
        count(&reached, move || by_path.accept().is_ok());
        let name = service.path("");
        let name = name.to_str().unwrap().trim_end_matches('/');
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let by_name = UnixListener::bind_addr(&address).unwrap();
        count(&reached, move || by_name.accept().is_ok());
        let listener = std::net::TcpListener::bind((METADATA, 0)).unwrap();
        let metadata = listener.local_addr().unwrap().port();
        count(&reached, move || listener.accept().is_ok());
        let mut victim = Command::new("setpriv");
        victim.args([format!("--reuid={user}"), "--clear-groups".into(), "sleep".into(), "86399".into()]);
        let victim = victim.stdout(Stdio::null()).spawn().unwrap();
        let shared = shared_memory();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
        Some(Self { service, victim, shared, metadata, reached, host })
    }

    /// Runs these: the names of those that got where they wanted.
    async fn try_all(&self, probes: &[Probe]) -> Vec<&'static str> {
        let mut through = Vec::new();
        for (name, by, script) in probes {
            let script = [
                ("{service}", self.service.pid().to_string()),
                ("{victim}", self.victim.id().to_string()),
                ("{folder}", self.service.path("").display().to_string().trim_end_matches('/').to_owned()),
                ("{secret}", SECRET.to_owned()),
                ("{rest}", self.service.rest.port().to_string()),
                ("{websocket}", self.service.websocket.port().to_string()),
                ("{metadata}", self.metadata.to_string()),
                ("{shared}", SHARED.to_string()),
                ("{host}", self.host.clone()),
            ]
            .iter()
            .fold((*script).to_owned(), |script, (name, value)| script.replace(name, value));
            let id = match by {
                By::Shell => "shell",
                By::Python => "python",
            };
            let talk = self.service.run("tool", id, json!({ "script": script })).await;
            let last = talk.last();
            println!("{name}: {last}");
            if last["success"] == true {
                through.push(*name);
            } else {
                let code = last["code"].as_str().unwrap();
                assert!(["exit_status", "timed_out"].contains(&code), "{name} was not tried: {last}");
            }
        }
        through
    }
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
        let _ = Command::new("ipcrm").arg("-m").arg(self.shared.to_string()).status();
    }
}

/// Counts whoever gets through to a listener.
fn count(reached: &Arc<AtomicUsize>, accept: impl Fn() -> bool + Send + 'static) {
    let seen = reached.clone();
    std::thread::spawn(move || {
        while accept() {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// A segment of shared memory (SysV) that everybody may read: its number.
fn shared_memory() -> i32 {
    let script =
        format!("import ctypes\nlibrary = ctypes.CDLL(None)\nprint(library.shmget({SHARED}, 4096, 0o1666))");
    let made = Command::new("/usr/bin/python3").args(["-c", &script]).output().unwrap();
    String::from_utf8_lossy(&made.stdout).trim().parse().unwrap()
}

/// Whether a process is gone, but for its parent's asking how.
fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// The processes that this one started.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// The built service where everybody may execute it.
fn copy_of_service(folder: &Path) -> PathBuf {
    let (from, to) = (Path::new(env!("CARGO_BIN_EXE_org-executor")), folder.join("org-executor"));
    if std::fs::hard_link(from, &to).is_err() {
        std::fs::copy(from, &to).unwrap();
    }
    to
}

fn give_away(folder: &Path, user: u32) {
    std::os::unix::fs::chown(folder, Some(user), Some(user)).unwrap();
}

/// Nothing of this gets through, and the service and what is around it are as they were.
async fn nothing_gets_out(user: u32) {
    let Some(mut around) = Surroundings::new(user, "auto").await else { return };
    if !is_isolated(&around.service).await {
        return;
    }
    let got = [around.try_all(LEAKS).await, around.try_all(ESCAPES).await].concat();
    println!("{} probes as user {user}", LEAKS.len() + ESCAPES.len());
    assert!(got.is_empty(), "as user {user}, got through: {got:?}");
    assert_eq!(around.reached.load(Ordering::Relaxed), 0, "a listener was reached");
    assert_eq!(around.victim.try_wait().unwrap(), None, "a process outside was ended");
    assert_eq!(std::fs::read_to_string(around.service.path("secret.txt")).unwrap(), SECRET);
    assert_eq!(around.service.rest("GET", "/readyz", "").await.0, 200);
}

#[tokio::test]
async fn nothing_gets_out_of_a_jail_of_root() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: not root");
        return;
    }
    nothing_gets_out(0).await;
}

#[tokio::test]
async fn nothing_gets_out_of_a_jail_of_nobody() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: not root, so that nobody else can be become");
        return;
    }
    nothing_gets_out(NOBODY).await;
}

/// The control: where there is no jail, most of these get through, so that they are known to be able to. Of those that
/// change or end something only the harmless ones are tried.
#[tokio::test]
async fn without_a_jail_most_probes_get_through() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: not root");
        return;
    }
    let Some(around) = Surroundings::new(0, "limits").await else { return };
    let got = around.try_all(LEAKS).await;
    println!("{} of {} leaks without a jail: {got:?}", got.len(), LEAKS.len());
    assert!(got.len() * 2 > LEAKS.len(), "{got:?}");
    let harmless = [
        "the REST API",
        "the WebSocket",
        "metadata of a cloud",
        "a socket by its path",
        "a socket by its name",
        "user namespace",
        "mount namespace",
        "network namespace",
        "process namespace",
        "frames of a network",
        "user 0",
        "other users",
        "rights of its own",
        "a key",
        "memory that stays",
        "semaphores that stay",
        "files by handles",
        "signal to the service",
        "rings of calls",
        "namespaces by clone",
        "mounts by the new calls",
    ];
    let harmless: Vec<Probe> = ESCAPES.iter().filter(|probe| harmless.contains(&probe.0)).copied().collect();
    let got = around.try_all(&harmless).await;
    println!("{} of {} escapes without a jail: {got:?}", got.len(), harmless.len());
    assert!(got.len() * 4 > harmless.len() * 3, "{got:?}");
    assert!(around.reached.load(Ordering::Relaxed) >= 3);
}

#[tokio::test]
async fn the_level_is_told_and_what_a_program_needs_is_there() {
    let service = Launch::new().start().await;
    let held = level(&service).await;
    put_source(
        &service,
        "handler.py",
        "def handler(input):\n    import os, tempfile\n    open(tempfile.mktemp(), 'w').write('x')\n    return sorted(os.listdir('.'))\n",
    );
    service.create(&tool("handler", python("handler.py"))).await;
    assert_eq!(*service.run("tool", "handler", json!({})).await.output(), json!([]));
    for runner in runners() {
        service.create(&runner).await;
    }
    let script = "set -e; echo x >file; cat file; echo y >/tmp/z; cat /tmp/z; echo w >/dev/shm/w; awk 'BEGIN{print 1+1}'; \
                  test -w . ; head -c 4 /dev/urandom | wc -c; echo $ORG_DEFINITION; nproc >/dev/null; date >/dev/null";
    let talk = service.run("tool", "shell", json!({ "script": script })).await;
    assert_eq!(talk.output()["stdout"], "x\ny\n2\n4\nshell\n");
    let script = "import multiprocessing, socket, sqlite3, ssl, threading\n\
                  lock = multiprocessing.Lock()\n\
                  server = socket.create_server(('127.0.0.1', 0))\n\
                  socket.create_connection(server.getsockname()).close()\n\
                  ssl.create_default_context()\n\
                  sqlite3.connect('db').execute('create table t(x)')\n\
                  print('fine')";
    let talk = service.run("tool", "python", json!({ "script": script })).await;
    assert_eq!(talk.output()["stdout"], "fine\n", "{}", talk.last());
    let (_, record) = service.rest("GET", &format!("/execution/{}", talk.uuid().unwrap()), "").await;
    assert_eq!(record["data"][LEVEL], held.as_str(), "{record}");
    let log = service.log();
    assert!(log.contains("sandbox") && log.contains(&held), "{log}");
}

#[tokio::test]
async fn nothing_stays_for_the_next_program() {
    let service = Launch::new().executors(1).start().await;
    if !is_isolated(&service).await {
        return;
    }
    for runner in runners() {
        service.create(&runner).await;
    }
    let run = |id: &'static str, script: &str| {
        let input = json!({ "script": script });
        let service = &service;
        async move { service.run("tool", id, input).await }
    };
    run(
        "shell",
        "echo x >/tmp/x; mkdir -p /tmp/d/e; echo x >/dev/shm/x; echo x >/var/tmp/y; echo x >x; mkdir d; ln -s / all; \
         chmod 000 d; (setsid sh -c 'sleep 86398; echo x >/tmp/late' >/dev/null 2>&1 &)",
    )
    .await
    .output();
    let talk = run(
        "shell",
        "ls -A /tmp /dev/shm /var/tmp/ . ; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 8639[8]",
    )
    .await;
    let (error, _) = talk.error();
    assert!(error.contains("exit status 1"), "something stayed: {error}");
    let talk = run("shell", "find /tmp /dev/shm /var/tmp/ . -mindepth 1").await;
    assert_eq!(talk.output()["stdout"], "");
    // A name of a socket goes with its process.
    run("python", "import os, socket, time\nif os.fork() == 0:\n    s = socket.socket(1)\n    s.bind('\\0name')\n    s.listen()\n    time.sleep(86398)").await.output();
    let talk = run("python", "import socket\nsocket.socket(1).connect('\\0name')").await;
    assert!(talk.error().0.contains("refused"), "{}", talk.last());
}

#[tokio::test]
async fn a_warm_interpreter_finds_an_empty_tmp_and_no_child() {
    let service = Launch::new().set("POOLS__PYTHON__MAX", 1).start().await;
    if !is_isolated(&service).await {
        return;
    }
    put_source(
        &service,
        "leaves.py",
        "import os, subprocess\n\n\ndef handler(input):\n    before = [os.listdir('/tmp'), os.listdir('/dev/shm'), os.listdir('.')]\n    \
         open('/tmp/x', 'w').write('x')\n    open('/dev/shm/x', 'w').write('x')\n    open('x', 'w').write('x')\n    \
         if input.get('child'):\n        subprocess.Popen(['sleep', '86397'])\n    return [os.getpid(), before]\n",
    );
    service.create(&tool("leaves", python("leaves.py"))).await;
    let mut pids = Vec::new();
    for turn in 0..6 {
        let output = service.run("tool", "leaves", json!({ "child": turn == 3 })).await;
        let output = output.output().clone();
        assert_eq!(output[1], json!([[], [], []]), "turn {turn}");
        pids.push(output[0].as_u64().unwrap());
    }
    assert_eq!(pids[0], pids[3], "the interpreter stays where it left no child");
    assert_eq!(pids[4], pids[5]);
}

#[tokio::test]
async fn output_files_that_are_no_files_give_nothing_away() {
    let service = Launch::new().start().await;
    std::fs::write(service.path("secret.txt"), format!("\"{SECRET}\"")).unwrap();
    let folder = service.path("").display().to_string();
    for (name, script) in [
        ("link", format!("ln -s {folder}/secret.txt \"$2\"")),
        ("hard-link", format!("ln {folder}/secret.txt \"$2\"")),
        ("password", "ln -s /etc/passwd \"$2\"".to_owned()),
        ("pipe", "mkfifo \"$2\"".to_owned()),
        ("folder", "mkdir \"$2\"".to_owned()),
        ("parent", format!("cd ..; ln -s {folder} x; mv x \"${{2%/*}}\"; exit 0")),
        ("device", "mknod \"$2\" c 1 5".to_owned()),
    ] {
        put_source(&service, &format!("{name}.sh"), format!("#!/bin/sh\n{script}\n"));
        service.create(&tool(name, json!({ "source_url": format!("{name}.sh"), "io": "files" }))).await;
        let talk = service.run("tool", name, json!({})).await;
        let (error, code) = talk.error();
        assert!(["invalid_output", "exit_status"].contains(&code), "{name}: {error}");
        assert!(!error.contains(SECRET), "{name}: {error}");
    }
    // What a link in the working folder leads to is not removed with it.
    service.create(&tool("links", shell("ln -s \"$SECRET_FOLDER\" here; ln -s / all; echo 1"))).await;
    service.run("tool", "links", json!({})).await.output();
    assert!(service.path("secret.txt").exists());
}

#[tokio::test]
async fn a_network_is_given_only_where_both_allow_it() {
    let wanting = |network: Value| {
        let mut metadata = json!({
            "runtime": "binary", "entrypoint": "python3", "output": "text",
            "args": ["-c", "import socket; socket.create_connection(('127.0.0.1', {{port}}), 5); print('reached')"],
        });
        if !network.is_null() {
            metadata["network"] = network;
        }
        metadata
    };
    for (level, allowed, network, expected) in [
        ("auto", false, Value::Null, "refused"),
        ("auto", false, json!(true), "which `sandbox.network` does not allow"),
        ("auto", true, Value::Null, "refused"),
        ("auto", true, json!(false), "refused"),
        ("auto", true, json!(true), "reached"),
        ("limits", false, Value::Null, "reached"),
        ("limits", false, json!(false), "can be kept only at the level \"isolated\""),
    ] {
        let launch = Launch::new().set("SANDBOX__LEVEL", level).set("SANDBOX__NETWORK", allowed);
        let service = launch.start().await;
        if level == "auto" && !is_isolated(&service).await {
            continue;
        }
        service.create(&tool("network", wanting(network.clone()))).await;
        for _ in 0..2 {
            let talk = service.run("tool", "network", json!({ "port": service.rest.port() })).await;
            let last = talk.last().to_string();
            assert!(last.replace("\\\"", "\"").contains(expected), "{level} {allowed} {network}: {last}");
        }
    }
}

#[tokio::test]
async fn a_level_that_cannot_be_had_is_no_weaker_one() {
    // Root without any of its rights can make no jail.
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: not root, so that no right can be taken away");
        return;
    }
    let powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"];
    let (status, log) = Launch::new().set("SANDBOX__LEVEL", "isolated").through(&powerless).refused().await;
    assert!(!status.success());
    assert!(log.contains("`sandbox.level` is \"isolated\", which this machine does not give"), "{log}");
}

#[tokio::test]
async fn programs_outside_the_view_are_named() {
    let service = Launch::new().start().await;
    if !is_isolated(&service).await {
        return;
    }
    // Not below /tmp, which each program has to itself.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = folder.path().join("program");
    std::fs::write(&program, "#!/bin/sh\necho 7\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let metadata = json!({ "runtime": "binary", "entrypoint": program });
    service.create(&tool("outside", metadata.clone())).await;
    let talk = service.run("tool", "outside", json!({})).await;
    let (error, code) = talk.error();
    assert_eq!(code, "not_startable");
    assert!(error.contains("is not shown in the sandbox") && error.contains("sandbox.readable"), "{error}");
    let readable = format!("[{:?}]", folder.path().display().to_string());
    let data = service.folder();
    service.stop().await;
    let service = Launch::on(data).set("SANDBOX__READABLE", readable).start().await;
    assert_eq!(*service.run("tool", "outside", json!({})).await.output(), json!(7));
}

#[tokio::test]
async fn a_jail_that_ends_is_made_again() {
    let service = Launch::new().executors(1).start().await;
    if !is_isolated(&service).await {
        return;
    }
    service.create(&tool("quick", shell("printf 1"))).await;
    service.run("tool", "quick", json!({})).await.output();
    let launchers = || children(service.pid());
    let before = launchers();
    assert!(!before.is_empty());
    for pid in &before {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    eventually("a launcher ends", PATIENCE, || before.iter().all(|pid| has_ended(*pid))).await;
    let talk = service.run("tool", "quick", json!({})).await;
    if talk.last()["success"] != true {
        // The one that found out.
        assert_eq!(talk.error().1, "interrupted", "{}", talk.last());
    }
    assert_eq!(*service.run("tool", "quick", json!({})).await.output(), json!(1));
}
