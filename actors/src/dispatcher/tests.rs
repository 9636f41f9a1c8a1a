//! The life of executions against a simple model: random events, with a journal that writes, fails and is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use tokio::sync::Semaphore;

use super::*;
use crate::audit::{Origin, Trail};
use crate::compiled::{Compiled, Revision};
use crate::definition::{Definition, Kind};
use crate::execution::{Client, Input, Options};
use crate::secrets::Granted;

/// How many random sequences there are, and how many events each has.
const SEQUENCES: u64 = 100_000;
const EVENTS: usize = 24;

/// An actor that takes every message and does nothing.
#[derive(Debug)]
struct Deaf<M>(std::marker::PhantomData<fn() -> M>);

impl<M: ractor::Message> Actor for Deaf<M> {
    type Msg = M;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<M>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

async fn deaf<M: ractor::Message>() -> ActorRef<M> {
    Actor::spawn(None, Deaf(std::marker::PhantomData), ()).await.expect("started").0
}

/// A small generator, so that a failing sequence can be run again by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % sides as u64) as usize
    }
}

/// All that the sequences share.
struct World {
    dispatcher: Ref,
    journal: journal::Ref,
    executors: Vec<executor::Ref>,
    definitions: Vec<Arc<Compiled>>,
    permits: Arc<Semaphore>,
}

impl World {
    async fn new() -> Self {
        let mut executors = Vec::new();
        for _ in 0..3 {
            executors.push(deaf().await);
        }
        let definition = |id: &str, metadata: &str| {
            let body = format!(r#"{{"tool_id":"{id}","tool_metadata":{metadata}}}"#);
            let definition = Definition::parse(Kind::Tool, &body).expect("valid");
            let revision = Revision { definition, number: 1, created_ms: 1, updated_ms: 1, pin: None };
            Compiled::new(&revision).expect("compiles")
        };
        let definitions = vec![
            definition("once", r#"{"runtime":"binary"}"#),
            definition("one", r#"{"runtime":"binary","max_concurrency":1}"#),
            definition(
                "again",
                r#"{"runtime":"binary","idempotent":true,"retries":{"max":2,"backoff_ms":60000}}"#,
            ),
        ];
        let permits = Arc::new(Semaphore::new(1_000));
        Self { dispatcher: deaf().await, journal: deaf().await, executors, definitions, permits }
    }

    fn state(&self, is_journalled: bool, rate: f64) -> State {
        let settings = PoolSettings { min: 0, max: 3, queue: 8, idle_ms: 1_000_000 };
        let mut state = State::new(
            self.dispatcher.clone(),
            Args {
                names: Names::unique(),
                pools: BTreeMap::from([(Runtime::Binary, settings)]),
                max_queued_bytes: 1 << 20,
                max_per_client: 20,
                trail: Arc::new(Trail::new(false)),
                is_journalled,
                sandbox: None,
            },
        );
        state.receive(Msg::JournalReplaced(self.journal.clone()));
        if let Some(lane) = state.lanes.get_mut(&Runtime::Binary) {
            lane.set_rate(rate);
        }
        if is_journalled {
            let nothing = Recovered { floor: None, last: 0, executions: Vec::new() };
            state.receive(Msg::Recovered(Ok(Ok(nothing))));
        }
        state
    }

    fn job(&self, uuid: Uuid, definition: usize) -> Box<Job> {
        Box::new(Job {
            uuid,
            definition: self.definitions[definition].clone(),
            runtime: Runtime::Binary,
            input: Input { text: "{}".into() },
            options: Options::default(),
            client: Client::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            origin: Arc::new(Origin::service()),
            max_open: None,
            traceparent: None,
            log: None,
            kept: Arc::default(),
            secrets: Granted::default(),
        })
    }
}

/// What one client heard.
struct Heard {
    news: mpsc::UnboundedReceiver<Notice>,
    is_idempotent: bool,
    accepted: usize,
    refused: usize,
    finished: usize,
    /// Attempts that reached an executor.
    begun: BTreeSet<u32>,
}

/// One sequence.
struct Life<'a> {
    world: &'a World,
    state: State,
    dice: Dice,
    heard: BTreeMap<Uuid, Heard>,
    seed: u64,
}

impl Life<'_> {
    fn step(&mut self) {
        let executor = self.world.executors[self.dice.roll(3)].clone();
        match self.dice.roll(12) {
            0..=2 => self.submit(),
            3 | 4 => self.journalled(true),
            5 => self.journalled(false),
            6 => self.state.receive(Msg::Idle { runtime: Runtime::Binary, executor }),
            7 | 8 => self.finish(executor, 0),
            // A late result of an attempt that there was, or never was.
            9 if self.dice.roll(2) == 0 => self.finish(executor, 1),
            9 => self.state.receive(Msg::JournalReplaced(self.world.journal.clone())),
            10 if self.dice.roll(2) == 0 => self.state.receive(Msg::ExecutorDown(executor.get_id())),
            10 => self.state.receive(Msg::Tick),
            _ => {
                let uuids: Vec<Uuid> = self.heard.keys().copied().collect();
                let Some(uuid) = (!uuids.is_empty()).then(|| uuids[self.dice.roll(uuids.len())]) else {
                    return;
                };
                if self.dice.roll(2) == 0 {
                    self.state.receive(Msg::Retry(uuid));
                } else {
                    self.state.cancel(uuid);
                }
            }
        }
    }

    fn submit(&mut self) {
        let definition = self.dice.roll(3);
        let uuid = Uuid::from_u128((u128::from(self.seed) << 32) + self.heard.len() as u128 + 1);
        let (sender, news) = mpsc::unbounded_channel();
        let permit = self.world.permits.clone().try_acquire_owned().expect("a permit");
        let job = self.world.job(uuid, definition);
        let caller = Caller::Channel(sender);
        let is_idempotent = definition == 2;
        let heard =
            Heard { news, is_idempotent, accepted: 0, refused: 0, finished: 0, begun: BTreeSet::new() };
        self.heard.insert(uuid, heard);
        self.state.receive(Msg::Submit { job, caller, permit, recorded: None });
    }

    /// The journal tells of the first of what it has.
    fn journalled(&mut self, is_written: bool) {
        let Some(records) = &self.state.records else { return };
        let mut receipts = records.sent();
        if receipts.is_empty() {
            return;
        }
        receipts.truncate(1 + self.dice.roll(receipts.len()));
        self.state.receive(Msg::Journalled { receipts, is_written });
    }

    fn finish(&mut self, executor: executor::Ref, late: u32) {
        let Some(uuid) = self.state.by_executor.get(&executor.get_id()).copied() else { return };
        let outcome = match self.dice.roll(4) {
            0 => Outcome::failed("exit_status", "x"),
            1 => Outcome::interrupted("the launcher failed"),
            _ => Outcome::succeeded("1".into()),
        };
        let attempt = self.state.open[&uuid].attempts + late;
        let is_running = matches!(self.state.open[&uuid].phase, Phase::Running { .. });
        let (outcome, runtime) = (Box::new(outcome), Runtime::Binary);
        let is_idle = late == 0 && is_running;
        self.state.receive(Msg::Finished { uuid, attempt, outcome, runtime, executor, is_idle });
        if late > 0 && is_running {
            let still =
                self.state.open.get(&uuid).is_some_and(|open| matches!(open.phase, Phase::Running { .. }));
            assert!(still, "seed {}: {uuid} ended by the result of another attempt", self.seed);
        }
    }

    /// What must hold after every event.
    fn check(&mut self) {
        let (seed, mut noted_early) = (self.seed, 0);
        for (uuid, open) in &self.state.open {
            let Some(heard) = self.heard.get_mut(uuid) else {
                panic!("seed {seed}: {uuid} came from nowhere")
            };
            if let Phase::Next(_) = open.phase {
                noted_early += 1;
                assert!(self.state.records.is_some(), "seed {seed}: {uuid} is next and nothing is recorded");
            }
            if let Phase::Running { .. } = open.phase {
                assert!(open.is_recorded, "seed {seed}: {uuid} runs and is not on record");
                let is_noted = heard.is_idempotent || open.recorded_attempt >= open.attempts;
                assert!(self.state.records.is_none() || is_noted, "seed {seed}: {uuid} runs unnoted");
                heard.begun.insert(open.attempts);
            }
        }
        let next: usize = self.state.lanes.values().map(|lane| lane.next.len()).sum();
        assert_eq!(noted_early, next, "seed {seed}: who is next");
        for (uuid, heard) in &mut self.heard {
            while let Ok(notice) = heard.news.try_recv() {
                match notice {
                    Notice::Accepted(_) => heard.accepted += 1,
                    Notice::Refused(..) => heard.refused += 1,
                    Notice::Finished(..) => {
                        assert_eq!(heard.accepted, 1, "seed {seed}: {uuid} ended before it was accepted");
                        heard.finished += 1;
                    }
                    other => panic!("seed {seed}: {uuid} heard {other:?}"),
                }
            }
            assert!(heard.accepted + heard.refused <= 1, "seed {seed}: {uuid} was answered twice");
            assert!(heard.finished <= 1, "seed {seed}: {uuid} ended twice");
            assert!(heard.refused == 0 || heard.begun.is_empty(), "seed {seed}: {uuid} was refused and ran");
            assert!(heard.is_idempotent || heard.begun.len() <= 1, "seed {seed}: {uuid} ran twice");
        }
    }

    /// The disk works, executors come, programs succeed: all that is open ends.
    fn settle(&mut self) {
        for _ in 0..200 {
            if self.state.open.is_empty() && self.state.records.as_ref().is_none_or(Records::is_empty) {
                return;
            }
            self.state.receive(Msg::Tick);
            while self.state.records.as_ref().is_some_and(|records| !records.sent().is_empty()) {
                self.journalled(true);
                self.check();
            }
            for executor in self.world.executors.clone() {
                self.state.receive(Msg::Idle { runtime: Runtime::Binary, executor: executor.clone() });
                self.check();
                self.finish(executor, 0);
                self.check();
            }
            let uuids: Vec<Uuid> = self.state.open.keys().copied().collect();
            uuids.into_iter().for_each(|uuid| self.state.receive(Msg::Retry(uuid)));
            self.check();
        }
        panic!("seed {}: still open are {:?}", self.seed, self.state.open);
    }
}

#[tokio::test]
async fn a_hundred_thousand_random_lives_end_each_execution_once() {
    let world = World::new().await;
    for seed in 0..SEQUENCES {
        // Where executions end fast, some are noted before an executor is free.
        let rate = [0.0, 300.0, 1_000.0][seed as usize % 3];
        let state = world.state(seed % 4 != 0, rate);
        let mut life = Life { world: &world, state, dice: Dice(seed), heard: BTreeMap::new(), seed };
        for _ in 0..EVENTS {
            life.step();
            life.check();
        }
        life.settle();
        for (uuid, heard) in &life.heard {
            assert_eq!(heard.accepted + heard.refused, 1, "seed {seed}: {uuid} was not answered");
            assert_eq!(heard.finished, heard.accepted, "seed {seed}: {uuid} did not end");
        }
        assert!(life.state.of_clients.is_empty(), "seed {seed}: {:?}", life.state.of_clients);
        assert!(life.state.keys.is_empty() && life.state.queued_bytes == 0, "seed {seed}");
        drop(life);
        if seed % 64 == 0 {
            // What was told to the deaf is forgotten meanwhile.
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(world.permits.available_permits(), 1_000, "every permit came back");
}

#[tokio::test]
async fn what_is_asked_whether_it_records_says_no_after_a_write_that_failed() {
    let world = World::new().await;
    let mut state = world.state(true, 0.0);
    let is_recording = |state: &mut State| {
        let (sender, mut answer) = tokio::sync::oneshot::channel();
        state.receive(Msg::IsRecording(sender.into()));
        answer.try_recv().expect("answered at once")
    };
    assert!(is_recording(&mut state));
    state.receive(Msg::Journalled { receipts: vec![Receipt::Floor], is_written: false });
    assert!(!is_recording(&mut state));
    state.receive(Msg::Journalled { receipts: vec![Receipt::Floor], is_written: true });
    assert!(is_recording(&mut state));
}
