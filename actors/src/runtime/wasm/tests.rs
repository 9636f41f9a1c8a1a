use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::compiled::{Compiled, Revision};
use crate::definition::{Definition, Kind};
use crate::execution::{Client, Input, Options, Runtime, State};
use crate::log::LogRing;
use crate::settings::{LimitSettings, WasmSettings};

mod guests;

use guests::{command, command_component, function};

/// What the service has: an engine, one executor, and a folder.
struct Stand {
    engine: Arc<Engine>,
    egress: Egress,
    warm: Warm,
    limits: LimitSettings,
    folder: TempDir,
    revision: u64,
    ring: Arc<LogRing>,
    cancelled: watch::Receiver<bool>,
    _cancel: watch::Sender<bool>,
}

fn settings(max_instances: u32, max_runs: u64) -> WasmSettings {
    WasmSettings { max_instances, max_runs, code_mb: 64, compile_memory_mb: 1, compile_timeout_ms: 1 }
}

impl Stand {
    fn new() -> Self {
        Self::with(settings(4, 1_000))
    }

    fn with(settings: WasmSettings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = limits();
        let cache = folder.path().join("cache");
        let executors = settings.max_instances.min(2) as usize;
        let engine = Engine::new(&settings, &limits, executors, &cache, None).expect("an engine");
        let engine = Arc::new(engine);
        let (cancel, cancelled) = watch::channel(false);
        let (warm, ring) = (Warm::default(), Arc::new(LogRing::new(100)));
        let egress = Egress::new(Vec::new()).expect("a way out");
        Self { engine, egress, warm, limits, folder, revision: 1, ring, cancelled, _cancel: cancel }
    }

    fn file(&self, text: &str) -> (PathBuf, String) {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let pin = format!("{:x}", hasher.finish());
        let file = self.folder.path().join(&pin);
        std::fs::write(&file, text).expect("written");
        (file, pin)
    }

    fn job(&self, metadata: &Value, input: &str) -> Job {
        let body = json!({"tool_id": "t", "tool_metadata": metadata, "tool_default_params": {}}).to_string();
        let definition = Definition::parse(Kind::Tool, &body).expect("valid");
        let revision =
            Revision { definition, number: self.revision, created_ms: 1, updated_ms: 1, pin: None };
        Job {
            uuid: Uuid::nil(),
            definition: Compiled::new(&revision).expect("compiles"),
            runtime: Runtime::Wasm,
            input: Input { text: input.to_owned() },
            options: Options::default(),
            client: Client::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            origin: std::sync::Arc::new(crate::audit::Origin::service()),
            max_open: None,
            traceparent: Some("00-trace".into()),
            log: Some(self.ring.clone()),
            kept: Arc::default(),
            secrets: crate::secrets::Granted::default(),
        }
    }

    /// What the guest put out, as text.
    async fn run(&mut self, guest: &str, metadata: Value, input: &str) -> Result<String, Outcome> {
        self.run_with(guest, metadata, input, Folders::new()).await
    }

    async fn run_with(
        &mut self,
        guest: &str,
        metadata: Value,
        input: &str,
        folders: Folders,
    ) -> Result<String, Outcome> {
        let (file, pin) = self.file(guest);
        let job = self.job(&metadata, input);
        let lines = Lines::new(job.log.as_deref(), 1_000);
        let bounds = Bounds::of(&job, &self.limits);
        let mut stop = Stop::new(bounds.timeout, self.cancelled.clone());
        let (warm, engine) = (&mut self.warm, &self.engine);
        match run(warm, &job, engine, &file, &pin, lines, bounds, &mut stop, folders, &self.egress).await? {
            Produced::Bytes(bytes) => Ok(String::from_utf8(bytes).expect("text")),
            Produced::Json(_) => panic!("the output mode has a say"),
        }
    }

    async fn fails(&mut self, guest: &str, metadata: Value) -> (&'static str, String) {
        let outcome = self.run(guest, metadata, "{}").await.expect_err("a failure");
        let failure = outcome.result.expect_err("a failure");
        let std::borrow::Cow::Borrowed(code) = failure.code else { panic!("a code that was read") };
        (code, failure.message)
    }

    /// How many instances live.
    fn instances(&self) -> u64 {
        self.engine.wasmtime().pooling_allocator_metrics().expect("a pool").core_instances()
    }

    async fn until_gone(&self) {
        let gone = async {
            while self.instances() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("no instance is left");
    }
}

fn limits() -> LimitSettings {
    let limits = json!({
        "timeout_ms": 20_000, "max_timeout_ms": 60_000, "output_bytes": 100_000, "max_output_bytes": 1_000_000,
        "memory_mb": 64, "max_memory_mb": 256, "processes": 1, "max_processes": 1, "files": 1, "max_files": 1,
        "disk_mb": 1, "containment": "auto", "log_line_bytes": 1_000, "log_lines": 100,
    });
    serde_json::from_value(limits).expect("settings")
}

#[tokio::test]
async fn a_command_reads_its_input_and_prints_its_output() {
    let mut stand = Stand::new();
    let echo = command(guests::ECHO);
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(50_000));
    for (metadata, input, output) in [
        (json!({}), r#"{"a":1}"#, r#"{"a":1}"#),
        (json!({}), long.as_str(), long.as_str()),
        (json!({"stdin": "none"}), r#"{"a":1}"#, ""),
        (json!({"stdin": "a is {{a}}"}), r#"{"a":1}"#, "a is 1"),
    ] {
        assert_eq!(stand.run(&echo, metadata, input).await.expect("an output"), output);
    }
    assert_eq!(stand.instances(), 0, "each had an instance of its own");
}

#[tokio::test]
async fn a_command_knows_its_arguments_and_whose_run_it_is() {
    let mut stand = Stand::new();
    let metadata = json!({"args": ["--n={{a}}", "b c"], "env": {"OWN": "1", "ORG_EXECUTION": "hidden"}});
    let told = stand.run(&command(guests::TELL), metadata, r#"{"a":1}"#).await.expect("an output");
    let uuid = format!("ORG_EXECUTION={}", Uuid::nil());
    let told: Vec<_> = told.split_terminator('\0').collect();
    let expected = ["t", "--n=1", "b c", "ORG_DEFINITION=t", &uuid, "OWN=1", "TRACEPARENT=00-trace"];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_command_that_is_a_component_runs_too() {
    let mut stand = Stand::new();
    let hello = stand.run(&command_component(false), json!({}), "{}").await;
    assert_eq!(hello.expect("an output"), r#""hello""#);
    let (code, message) = stand.fails(&command_component(true), json!({})).await;
    assert_eq!((code, message.as_str()), ("exit_status", "the module ended with exit status 1"));
}

#[tokio::test]
async fn an_exit_status_and_a_trap_are_told_with_the_end_of_stderr() {
    let mut stand = Stand::new();
    let (code, message) =
        stand.fails(&command("(call $complain) (call $proc_exit (i32.const 3))"), json!({})).await;
    assert_eq!(
        (code, message.as_str()),
        ("exit_status", "the module ended with exit status 3: said on stderr")
    );
    let (code, message) = stand.fails(&command("(call $complain) (unreachable)"), json!({})).await;
    assert_eq!(code, "trap");
    assert_eq!(message, "the module trapped: wasm `unreachable` instruction executed: said on stderr");
    let (code, message) = stand.fails(&command("(drop (call $recurse (i32.const 0)))"), json!({})).await;
    assert_eq!((code, message.as_str()), ("trap", "the module trapped: call stack exhausted"));
    assert_eq!(
        stand.run(&command("(call $proc_exit (i32.const 0))"), json!({}), "{}").await.expect("fine"),
        ""
    );
    assert_eq!(stand.ring.take().lines, ["said on stderr", "said on stderr"]);
}

#[tokio::test]
async fn a_guest_that_never_ends_is_ended_at_its_timeout_and_nothing_is_left() {
    let mut stand = Stand::new();
    for guest in
        [command(guests::SPIN), command(guests::SLEEP), function("(loop $on (br $on)) (unreachable)")]
    {
        // Compiling counts as well.
        stand.run(&guest, json!({"limits": {"timeout_ms": 1}}), "{}").await.expect_err("too late");
        let (file, pin) = stand.file(&guest);
        stand.engine.code(&file, &pin).await.expect("compiles");
        let began = Instant::now();
        let outcome =
            stand.run(&guest, json!({"limits": {"timeout_ms": 100}}), "{}").await.expect_err("too late");
        assert_eq!(outcome.state, State::TimedOut);
        assert!(began.elapsed() >= Duration::from_millis(100) && began.elapsed() < Duration::from_secs(2));
        assert_eq!(stand.instances(), 0);
    }
}

#[tokio::test]
async fn a_guest_is_cancelled_while_it_computes_and_its_log_came_before() {
    let stand = Stand::new();
    let (cancel, cancelled) = watch::channel(false);
    let ring = stand.ring.clone();
    let mut stand = Stand { cancelled, ..stand };
    let look = async {
        ring.written().await;
        let said = ring.take().lines;
        cancel.send_replace(true);
        said
    };
    let guest = command(guests::SPIN);
    let (outcome, said) = tokio::join!(stand.run(&guest, json!({}), "{}"), look);
    assert_eq!(outcome.expect_err("cancelled").state, State::Cancelled);
    assert_eq!(said, ["said on stderr"]);
    assert_eq!(stand.instances(), 0);
}

#[tokio::test]
async fn a_guest_goes_with_the_run_that_was_dropped() {
    let mut stand = Stand::new();
    for guest in
        [command(guests::SPIN), command(guests::SLEEP), function("(loop $on (br $on)) (unreachable)")]
    {
        let (file, pin) = stand.file(&guest);
        stand.engine.code(&file, &pin).await.expect("compiles");
        let run = stand.run(&guest, json!({}), "{}");
        // Long enough for it to run in a thread of its own.
        let _ = tokio::time::timeout(Duration::from_millis(300), run).await.expect_err("it never ends");
        stand.until_gone().await;
    }
}

#[tokio::test]
async fn a_guest_that_computes_never_holds_a_worker() {
    let mut stand = Stand::new();
    let (file, pin) = stand.file(&command(guests::SPIN));
    stand.engine.code(&file, &pin).await.expect("compiles");
    let turns = Arc::new(AtomicU32::new(0));
    let counted = turns.clone();
    // There is one worker for this and for the guest: with the guest on it, each turn would take a tick.
    let other = tokio::spawn(async move {
        loop {
            tokio::task::yield_now().await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let metadata = json!({"limits": {"timeout_ms": 500}});
    let _ = stand.run(&command(guests::SPIN), metadata, "{}").await.expect_err("too late");
    other.abort();
    assert!(turns.load(Ordering::Relaxed) > 5_000, "{turns:?}");
}

#[tokio::test]
async fn each_bound_is_kept_and_told() {
    let mut stand = Stand::new();
    for (guest, limits, expected) in [
        (command(guests::SPIN), json!({"cpu_ms": 20}), "cpu_exceeded"),
        (function("(loop $on (br $on)) (unreachable)"), json!({"cpu_ms": 20}), "cpu_exceeded"),
        (command(guests::GROW), json!({"memory_mb": 16}), "memory_exceeded"),
        (
            command("(nop)").replace("\"memory\") 2", "\"memory\") 300"),
            json!({"memory_mb": 16}),
            "memory_exceeded",
        ),
        (function(&format!("{} (drop)", guests::GROW)), json!({"memory_mb": 16}), "memory_exceeded"),
        (command(guests::FLOOD), json!({}), "output_too_large"),
        (function(guests::LONG), json!({}), "output_too_large"),
        (function(guests::LONG), json!({"output_bytes": 1_000_000}), "output_too_large"),
    ] {
        let (code, message) = stand.fails(&guest, json!({"limits": limits})).await;
        assert_eq!(code, expected, "{message}: {guest}");
        assert_eq!(stand.instances(), 0);
    }
}

#[tokio::test]
async fn an_instance_of_a_component_answers_again_and_again() {
    let mut stand = Stand::new();
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(90_000));
    for input in ["{}", r#"{"a":"ä"}"#, long.as_str()] {
        assert_eq!(stand.run(&function(guests::SAME), json!({}), input).await.expect("an answer"), input);
    }
    let too_long = "x".repeat(200_000);
    let outcome = stand.run(&function(guests::SAME), json!({}), &too_long).await.expect_err("too large");
    assert_eq!(outcome.result.expect_err("a failure").code, "output_too_large");
    for runs in ["1", "2", "3"] {
        assert_eq!(stand.run(&function(guests::COUNT), json!({}), "{}").await.expect("an answer"), runs);
    }
    assert_eq!(stand.instances(), 1);
    stand.revision = 2;
    assert_eq!(stand.run(&function(guests::COUNT), json!({}), "{}").await.expect("an answer"), "1");
    let less = json!({"limits": {"memory_mb": 1}});
    assert_eq!(stand.run(&function(guests::COUNT), less, "{}").await.expect("an answer"), "1");
    assert_eq!(stand.instances(), 1, "the others went");
}

#[tokio::test]
async fn an_instance_that_works_for_long_is_kept_all_the_same() {
    let mut stand = Stand::new();
    for runs in ["1", "2", "3"] {
        assert_eq!(stand.run(&function(guests::WORK), json!({}), "{}").await.expect("an answer"), runs);
    }
}

#[tokio::test]
async fn an_instance_is_replaced_after_a_trap_a_timeout_and_enough_runs() {
    let mut stand = Stand::with(settings(4, 3));
    for guest in [function(guests::COUNT_OR_TRAP), function(guests::COUNT_OR_SPIN)] {
        for (input, answer) in [
            ("{}", Some("1")),
            (r#"{"a":1}"#, None),
            ("{}", Some("1")),
            ("{}", Some("2")),
            ("{}", Some("3")),
            ("{}", Some("1")),
        ] {
            let metadata = json!({"limits": {"timeout_ms": 5_000, "cpu_ms": 50}});
            let given = stand.run(&guest, metadata, input).await.ok();
            assert_eq!(given.as_deref(), answer);
        }
    }
}

#[tokio::test]
async fn a_component_says_why_it_failed_and_is_kept() {
    let mut stand = Stand::new();
    let guest = function(guests::REFUSE);
    let outcome = stand.run(&guest, json!({}), "{\"no\":1}").await.expect_err("a failure");
    assert_eq!(outcome, Outcome::failed("failed", "{\"no\":1}"));
    let long = "ä".repeat(5_000);
    let outcome = stand.run(&guest, json!({}), &long).await.expect_err("a failure");
    assert_eq!(outcome, Outcome::failed("failed", "ä".repeat(1_024)));
    assert_eq!(stand.instances(), 1);
}

#[tokio::test]
async fn a_folder_is_seen_where_it_is_granted_and_is_never_written() {
    let mut stand = Stand::new();
    let granted = stand.folder.path().join("granted");
    std::fs::create_dir(&granted).expect("made");
    std::fs::write(granted.join("greeting.txt"), "hello").expect("written");
    let guest = command(guests::READ_FOLDER);
    assert_eq!(stand.run(&guest, json!({}), "{}").await.expect("an output"), "0");
    let folders = vec![(granted.clone(), "/data".to_owned())];
    assert_eq!(stand.run_with(&guest, json!({}), "{}", folders).await.expect("an output"), "hello0");
    assert_eq!(std::fs::read_dir(&granted).expect("there").count(), 1);
    let missing = vec![(granted.join("missing"), "/data".to_owned())];
    let outcome = stand.run_with(&guest, json!({}), "{}", missing).await.expect_err("no folder");
    let message = "the folder that it sees as /data cannot be opened";
    assert_eq!(outcome, Outcome::failed("not_startable", message));
}

#[tokio::test]
async fn what_cannot_be_run_says_why() {
    let mut stand = Stand::new();
    let entry = "exports neither `_start` nor `run: func(input: string) -> result<string, string>`";
    let wrong_run = r#"(component
        (core module $code (func (export "run") (result i32) (i32.const 1)))
        (core instance $made (instantiate $code))
        (func $run (result u32) (canon lift (core func $made "run")))
        (export "run" (func $run)))"#;
    for (guest, why) in [
        ("nonsense", "the source is no WebAssembly: "),
        ("(module", "the source is no WebAssembly: "),
        ("\0asm\u{1}\0\0\0nonsense", "the source is no WebAssembly: "),
        ("(module)", entry),
        ("(module (func (export \"_start\") (param i32)))", entry),
        ("(component)", entry),
        (wrong_run, entry),
        (
            "(module (import \"env\" \"f\" (func)) (func (export \"_start\")))",
            "the module needs what is not there: unknown import: `env::f` has not been defined",
        ),
    ] {
        let (code, message) = stand.fails(guest, json!({})).await;
        assert_eq!(code, "not_startable");
        assert!(message.contains(why) && !message.contains('\n'), "{message}");
        assert!(!message.contains(&*stand.folder.path().to_string_lossy()), "{message}");
    }
}

#[tokio::test]
async fn more_instances_than_there_may_be_are_refused() {
    let mut stand = Stand::with(settings(1, 10));
    stand.run(&function(guests::COUNT), json!({}), "{}").await.expect("an answer");
    let kept = std::mem::take(&mut stand.warm);
    let (code, message) = stand.fails(&function(guests::SAME), json!({})).await;
    assert_eq!((code, message.contains("as many")), ("unavailable", true), "{message}");
    drop(kept);
    stand.run(&function(guests::SAME), json!({}), "{}").await.expect("an answer");
}

#[tokio::test]
async fn there_is_room_for_the_largest_guest_of_each_executor() {
    let mut stand = Stand::with(settings(2, 10));
    let memories = "(core instance (instantiate $more))".repeat(15);
    let more = format!("(core module $more (memory 1)) {memories} (core instance $made");
    let large = |guest: &str| function(guest).replacen("(core instance $made", &more, 1);
    stand.run(&large(guests::COUNT), json!({}), "{}").await.expect("an answer");
    let _kept = std::mem::take(&mut stand.warm);
    stand.run(&large(guests::SAME), json!({}), "{}").await.expect("an answer");
}

#[tokio::test]
async fn a_guest_has_no_network_unless_granted_and_no_private_address_then() {
    for (metadata, told) in [(json!({}), "no socket"), (json!({ "network": true }), "denied")] {
        let mut stand = Stand::new();
        let said = stand.run(&guests::connecting(9), metadata, "{}").await;
        assert_eq!(said.expect("an answer"), json!(told).to_string());
    }
}

#[tokio::test]
async fn compiled_code_is_kept_by_its_size() {
    let mut stand = Stand::with(WasmSettings { code_mb: 0, ..settings(4, 10) });
    for _ in 0..2 {
        assert_eq!(stand.run(&command(guests::ECHO), json!({}), "{}").await.expect("an output"), "{}");
    }
    assert!(format!("{:?}", stand.engine).contains("compiled: 0"), "{:?}", stand.engine);
    let mut stand = Stand::new();
    stand.run(&command(guests::ECHO), json!({}), "{}").await.expect("an output");
    assert!(format!("{:?}", stand.engine).contains("compiled: 1"), "{:?}", stand.engine);
}

#[tokio::test]
async fn a_guest_has_its_share_of_the_services_files() {
    let stand = Stand::with(settings(2, 10));
    assert_eq!(stand.engine.max_files(), crate::runtime::files::share(2));
}

#[tokio::test]
async fn without_a_pool_each_instance_takes_its_memory_by_itself() {
    let mut stand = Stand::with(settings(1_000_000, 10));
    assert!(stand.engine.wasmtime().pooling_allocator_metrics().is_none(), "no machine has that much");
    assert_eq!(stand.run(&command(guests::ECHO), json!({}), "{}").await.expect("an output"), "{}");
    assert_eq!(stand.run(&function(guests::SAME), json!({}), "{}").await.expect("an answer"), "{}");
}

#[tokio::test]
async fn the_example_of_the_catalog_answers() {
    let mut stand = Stand::new();
    let example = include_str!("../../../../config/catalog/measure-json.wat");
    for (input, answer) in
        [("{}", r#"{"bytes":2,"characters":2}"#), (r#"{"text":"über"}"#, r#"{"bytes":16,"characters":15}"#)]
    {
        assert_eq!(stand.run(example, json!({}), input).await.expect("an answer"), answer);
    }
    let long = "x".repeat(1_234_567);
    let answer = stand.run(example, json!({}), &long).await.expect("an answer");
    assert_eq!(answer, r#"{"bytes":1234567,"characters":1234567}"#);
}

#[tokio::test]
async fn a_command_holds_no_more_files_than_it_may() {
    let mut stand = Stand::new();
    std::fs::write(stand.folder.path().join("greeting.txt"), "hello").expect("written");
    let folders = vec![(stand.folder.path().to_owned(), "/data".to_owned())];
    let outcome =
        stand.run_with(&command(guests::OPEN), json!({}), "{}", folders).await.expect_err("too many");
    assert_eq!(outcome.result.expect_err("a failure").code, "files_exceeded");
}

#[tokio::test]
async fn code_is_compiled_once_and_kept_on_disk() {
    let stand = Stand::new();
    let (file, pin) = stand.file(&function(guests::SAME));
    let (one, other) = tokio::join!(stand.engine.code(&file, &pin), stand.engine.code(&file, &pin));
    assert!(Arc::ptr_eq(&one.expect("compiles"), &other.expect("compiles")));
    let cached = || {
        let mut folders = vec![stand.folder.path().join("cache")];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("there").flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files += 1 }
            }
        }
        files
    };
    assert!(cached() > 0);
    let (other, _) = stand.file(&function(guests::COUNT));
    let another = stand.engine.code(&other, &pin).await.expect("compiles");
    let first = stand.engine.code(&file, &pin).await.expect("compiles");
    assert!(!Arc::ptr_eq(&first, &another), "one source may hold several files");
    std::fs::remove_file(&file).expect("removed");
    stand.engine.code(&file, &pin).await.expect("it is in memory");
}

/// `cargo test -p actors -- --ignored --nocapture runs_a_second`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
async fn runs_a_second() {
    let stand = Stand::with(settings(8, u64::MAX));
    for executors in [1, 2, 4] {
        let warm = rate(&stand, &function(guests::SAME), executors, 100_000).await;
        let fresh = rate(&stand, &command(guests::ECHO), executors, 2_000).await;
        println!("{executors} executors: {warm:.0} calls of a warm component/s, {fresh:.0} commands/s");
    }
}

async fn rate(stand: &Stand, guest: &str, executors: u32, runs: u32) -> f64 {
    let (file, pin) = stand.file(guest);
    stand.engine.code(&file, &pin).await.expect("compiles");
    let began = Instant::now();
    let tasks = (0..executors).map(|_| {
        let job = stand.job(&json!({}), r#"{"text":"some words of an input"}"#);
        let bounds = Bounds::of(&job, &stand.limits);
        let (file, pin) = (file.clone(), pin.clone());
        let (engine, cancelled) = (stand.engine.clone(), stand.cancelled.clone());
        let egress = stand.egress.clone();
        tokio::spawn(async move {
            let mut warm = Warm::default();
            for _ in 0..runs {
                let lines = Lines::new(job.log.as_deref(), 1_000);
                let mut stop = Stop::new(bounds.timeout, cancelled.clone());
                let none = Folders::new();
                let run = run(&mut warm, &job, &engine, &file, &pin, lines, bounds, &mut stop, none, &egress);
                run.await.expect("an output");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("it ends");
    }
    f64::from(runs * executors) / began.elapsed().as_secs_f64()
}
