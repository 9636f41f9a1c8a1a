//! Twenty hostile programs of a runtime, again and again in any order, sixteen at once: each run ends with an outcome
//! that is right for its program, in time, nothing is left of it, and whoever else asks meanwhile is answered.
//!
//! The soaks: `cargo test --test it swarm:: -- --ignored --nocapture --test-threads 1`. What is printed is the
//! measurement; `SWARM_SEED` repeats an order.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::census::Census;
use crate::program::{Gate, accepted, put_source, tool};
use crate::service::{Launch, Service, eventually};
use crate::socket::{Talk, is_final};

mod container;
mod programs;
mod python;
mod wasm;

/// How many run at once, each by an executor of its own.
const WIDTH: usize = 16;

/// How often each program runs: in the usual tests, and in the soaks.
const FEW: usize = 2;
const MANY: usize = 200;

/// What stands in programs for the mark of their swarm, a number of seconds that nobody else sleeps for. It is on the
/// command line of all that they start.
const MARK: &str = "61.4242";

/// The outcome of a program that succeeds; the others are codes.
const OK: &str = "ok";

/// How much longer than its limit a run may take on a machine that has nothing else to do, which is counted; and on any,
/// which is asserted.
const PROMISE: Duration = Duration::from_millis(500);
const NOISE: Duration = Duration::from_secs(5);

/// Between two requests of somebody else.
const PAUSE: Duration = Duration::from_millis(100);

/// Two swarms at once would measure each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// A limit for programs that are not ended by their timeout: it only has to be longer than a busy machine takes.
const LONG: u64 = 20_000;

/// A program that misbehaves.
struct Program {
    name: &'static str,
    metadata: Value,
    input: Value,
    /// The outcomes that are right.
    right: &'static [&'static str],
}

/// A harmless program that executors run to get warm.
struct Calm {
    metadata: Value,
    input: Value,
    /// Whether it waits at the gate.
    waits: bool,
}

/// What a swarm is made of.
struct Swarm {
    service: Service,
    /// A tool for each program; programs with the same metadata share one, and what is kept warm for it.
    ids: Vec<String>,
    programs: Vec<Program>,
    calm: fn(&Gate) -> Calm,
    mark: String,
}

/// One run.
#[derive(Clone)]
struct Run {
    program: usize,
    uuid: Option<String>,
    outcome: String,
    took: Duration,
    /// What is wrong with it.
    wrong: Option<String>,
}

/// A service with as many executors of this runtime as run at once, and one for somebody else.
fn launch(runtime: &str) -> Launch {
    let mut launch = Launch::new().limits().set("LIMITS__DISK_MB", 32);
    for (runtime, executors) in [(runtime, WIDTH), ("SCRIPT", 1)] {
        for bound in ["MIN", "MAX"] {
            launch = launch.set(&format!("POOLS__{runtime}__{bound}"), executors);
        }
    }
    launch
}

impl Program {
    fn limit(&self) -> Duration {
        Duration::from_millis(self.metadata["limits"]["timeout_ms"].as_u64().unwrap())
    }

    /// What is wrong with a run of it: what it said, whose answer it was, or when it came.
    fn fault(&self, talk: &Talk, took: Duration) -> Option<String> {
        let outcome = outcome(talk);
        let is_whole = match talk.frames.as_slice() {
            [first, last] => talk.uuid().is_some() && !is_final(first) && is_final(last),
            _ => false,
        };
        let is_its_own = outcome != OK || talk.last()["output"] == json!({ "execution": talk.uuid() });
        let is_right = is_whole && is_its_own && talk.close == Some(1000) && self.right.contains(&outcome);
        let heard: String = format!("{talk:?}").chars().take(1_000).collect();
        let is_late = took > self.limit() + NOISE;
        (is_late || !is_right).then(|| format!("{}, {took:?}, right is {:?}: {heard}", self.name, self.right))
    }
}

fn outcome(talk: &Talk) -> &str {
    let last = talk.frames.last().unwrap_or(&Value::Null);
    if last["success"] == true { OK } else { last["code"].as_str().unwrap_or("none") }
}

impl Swarm {
    async fn new(
        launch: Launch,
        mut programs: Vec<Program>,
        sources: &[(&str, &str)],
        calm: fn(&Gate) -> Calm,
    ) -> Self {
        assert_eq!(programs.len(), 20);
        let service = launch.start().await;
        for (name, content) in sources.iter().chain(&[("bystander.sh", "printf '{}'")]) {
            put_source(&service, name, content);
        }
        let bystander = json!({ "runtime": "script", "source_url": "bystander.sh" });
        service.create(&tool("bystander", bystander)).await;
        let mark = format!("61.{}", service.pid());
        let marked = |value: &Value| -> Value {
            serde_json::from_str(&value.to_string().replace(MARK, &mark)).unwrap()
        };
        for program in &mut programs {
            program.metadata = marked(&program.metadata);
            program.input = marked(&program.input);
        }
        let mut ids = Vec::new();
        for (index, Program { metadata, .. }) in programs.iter().enumerate() {
            let first = programs.iter().position(|other| other.metadata == *metadata).unwrap();
            ids.push(format!("hostile-{first}"));
            if first == index {
                service.create(&tool(&ids[index], metadata.clone())).await;
            }
        }
        Self { service, ids, programs, calm, mark }
    }

    /// Runs each program that many times while somebody else is served, and sees that nothing is left.
    async fn attack(self, times: usize) -> Service {
        let _turn = TURN.lock().await;
        self.service.run("tool", "bystander", json!({})).await.output();
        self.warm("calm-before").await;
        let folders = self.service.path("data/run");
        let before = Census::settled(&self.service, &folders).await;
        let order = shuffled(self.programs.len(), times, seed());
        let (start, next, is_over) = (Instant::now(), AtomicUsize::new(0), AtomicBool::new(false));
        let workers = async {
            let runs = join_all((0..WIDTH).map(|_| self.work(&order, &next))).await;
            is_over.store(true, Ordering::Relaxed);
            runs.concat()
        };
        let (runs, served) = tokio::join!(workers, self.serve_another(&is_over));
        println!("{} runs in {:.1?}; {served}", runs.len(), start.elapsed());
        self.report(&runs);
        let wrong: Vec<&str> = runs.iter().filter_map(|run| run.wrong.as_deref()).collect();
        let some = wrong[..wrong.len().min(20)].join("\n");
        assert!(wrong.is_empty(), "{} of {} runs went wrong:\n{some}", wrong.len(), runs.len());
        // What is kept now is kept for other definitions, and not by every executor.
        self.warm("calm-after").await;
        self.assert_gone(&runs).await;
        before.assert_restored(&self.service, &folders, None).await;
        eventually("no control group is left", NOISE, || {
            stale_cgroups(Path::new("/sys/fs/cgroup")).is_empty()
        })
        .await;
        self.service
    }

    /// Has every executor hold what it keeps: all run the same program at once.
    async fn warm(&self, id: &str) {
        let gate = Gate::new();
        let calm = (self.calm)(&gate);
        self.service.create(&tool(id, calm.metadata)).await;
        let mut sockets = Vec::new();
        for _ in 0..WIDTH {
            sockets.push(accepted(&self.service, id, calm.input.clone(), json!({})).await.0);
        }
        if calm.waits {
            gate.arrived(WIDTH).await;
        }
        gate.open();
        for socket in sockets {
            let talk = socket.rest().await;
            assert_eq!(talk.last()["success"], true, "{talk:?}");
        }
    }

    async fn work(&self, order: &[usize], next: &AtomicUsize) -> Vec<Run> {
        let mut runs = Vec::new();
        while let Some(program) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            runs.push(self.run(*program).await);
        }
        runs
    }

    async fn run(&self, program: usize) -> Run {
        let start = Instant::now();
        let input = self.programs[program].input.clone();
        let talk = self.service.run("tool", &self.ids[program], input).await;
        let took = start.elapsed();
        let wrong = self.programs[program].fault(&talk, took);
        let (uuid, outcome) = (talk.uuid().map(str::to_owned), outcome(&talk).to_owned());
        Run { program, uuid, outcome, took, wrong }
    }

    /// Somebody with a harmless request, who must not wait for long: how long it took.
    async fn serve_another(&self, is_over: &AtomicBool) -> String {
        let mut served = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let start = Instant::now();
            let talk = self.service.run("tool", "bystander", json!({})).await;
            served.push(start.elapsed());
            assert_eq!(*talk.output(), json!({}));
            tokio::time::sleep(PAUSE).await;
        }
        served.sort();
        let (half, worst) = (served[served.len() / 2], served[served.len() - 1]);
        assert!(worst < NOISE, "somebody else waited for {worst:?}");
        format!("somebody else was served {} times, in {half:.1?}, at worst {worst:.1?}", served.len())
    }

    fn report(&self, runs: &[Run]) {
        for (index, program) in self.programs.iter().enumerate() {
            let mut outcomes = BTreeMap::<&str, usize>::new();
            let mut worst = Duration::ZERO;
            for run in runs.iter().filter(|run| run.program == index) {
                *outcomes.entry(&run.outcome).or_default() += 1;
                worst = worst.max(run.took);
            }
            let over = worst.saturating_sub(program.limit());
            println!("{:<32} {outcomes:?}, at worst {worst:.1?}, {over:.1?} over its limit", program.name);
        }
        let late = runs.iter().filter(|run| run.took > self.programs[run.program].limit() + PROMISE).count();
        println!("{late} of {} took more than {PROMISE:?} longer than their limit", runs.len());
    }

    /// No process on this machine was started by these runs, also none that has left its tree or its environment.
    async fn assert_gone(&self, runs: &[Run]) {
        let uuids: HashSet<&str> = runs.iter().filter_map(|run| run.uuid.as_deref()).collect();
        let deadline = Instant::now() + NOISE;
        loop {
            let left = left(&self.mark, &uuids);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left are:\n{}", left.join("\n"));
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The command lines of processes that bear the mark or run for one of these executions.
fn left(mark: &str, uuids: &HashSet<&str>) -> Vec<String> {
    let mut left = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let text = |name: &str| {
            let bytes = fs::read(process.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', "\n")
        };
        let (command, environment) = (text("cmdline"), text("environ"));
        let mut executions = environment.lines().filter_map(|line| line.strip_prefix("ORG_EXECUTION="));
        if command.contains(mark) || executions.any(|uuid| uuids.contains(uuid)) {
            left.push(format!("{}: {}", process.path().display(), command.replace('\n', " ")));
        }
    }
    left
}

/// The control groups of launchers that are gone.
fn stale_cgroups(folder: &Path) -> Vec<PathBuf> {
    let mut stale = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name().into_string().unwrap_or_default();
        let launcher = name.strip_prefix("org-executor-").and_then(|pid| pid.parse::<u32>().ok());
        if launcher.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            stale.push(entry.path());
        }
        stale.extend(stale_cgroups(&entry.path()));
    }
    stale
}

/// Each of these programs that many times, in an order that the seed decides.
fn shuffled(programs: usize, times: usize, mut seed: u64) -> Vec<usize> {
    println!("SWARM_SEED={seed}");
    let mut order: Vec<usize> = (0..programs * times).map(|number| number % programs).collect();
    for last in (1..order.len()).rev() {
        // SplitMix64.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        order.swap(last, ((mixed ^ (mixed >> 31)) % (last as u64 + 1)) as usize);
    }
    order
}

fn seed() -> u64 {
    match std::env::var("SWARM_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
    }
}
