//! An execution is ended when somebody asks for it: by its own connection, over REST, or by leaving. Its client hears
//! one last frame, and nothing that it started is left.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::census::{Census, processes_of};
use crate::program::{Gate, accepted, shell, tool};
use crate::service::{Launch, PATIENCE, Service, eventually};
use crate::socket::Socket;

/// How long an end may take on a busy machine.
const NOISE: Duration = Duration::from_secs(3);

/// A service with one executor, a program that starts others and waits, and one that marks that it ran.
struct Bench {
    service: Service,
    gate: Gate,
    before: Census,
}

impl Bench {
    async fn new() -> Self {
        Self::on(Launch::new().limits()).await
    }

    async fn on(launch: Launch) -> Self {
        let (service, gate) = (launch.executors(1).start().await, Gate::new());
        let children = "setsid sleep 60 & (setsid sleep 60 <&- >&- 2>&- &);";
        let waiting = gate.program("printf 1");
        let script = waiting["args"][1].as_str().unwrap();
        service.create(&tool("waiting", shell(&format!("{children} {script}")))).await;
        let marks = gate.path().join("marks").display().to_string();
        service.create(&tool("marking", shell(&format!("echo ran >> {marks}; printf 2")))).await;
        // Its launcher stays from the first run on.
        service.run("tool", "marking", json!({})).await.output();
        let before = Census::settled(&service, &service.path("data/run")).await;
        Self { service, gate, before }
    }

    /// The waiting program, which runs, and has started others.
    async fn running(&self) -> (Socket, String) {
        let run = accepted(&self.service, "waiting", json!({}), json!({})).await;
        self.gate.arrived(1).await;
        eventually("it has started others", PATIENCE, || processes_of(&run.1).len() >= 3).await;
        run
    }

    /// The marking program, which waits for the other one's end.
    async fn queued(&self) -> (Socket, String) {
        accepted(&self.service, "marking", json!({}), json!({})).await
    }

    /// Waits until nothing waits in the queue, which nothing announces.
    async fn is_queue_empty(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, answer) = self.service.rest("GET", "/system", "").await;
            let queue = &answer["data"]["tree"]["queues"]["binary"];
            if queue["queued"] == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "{queue}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn delete(&self, uuid: &str) -> (u16, Value) {
        self.service.rest("DELETE", &format!("/execution/{uuid}"), "").await
    }

    /// How often the marking program ran.
    fn marks(&self) -> usize {
        self.gate.read("marks").lines().count()
    }

    async fn assert_nothing_left(&self, uuid: &str) {
        self.before.assert_restored(&self.service, &self.service.path("data/run"), Some(uuid)).await;
    }
}

/// The text with which a client asks for the end of its execution.
fn cancel(uuid: &str) -> String {
    json!({ "cancel": uuid }).to_string()
}

/// Hears the one last frame of an execution that was cancelled.
async fn is_cancelled(socket: Socket) {
    let talk = socket.rest().await;
    assert_eq!(talk.frames.len(), 1, "{talk:?}");
    assert_eq!(talk.error().1, "cancelled");
}

#[tokio::test]
async fn a_client_ends_its_running_execution() {
    let bench = Bench::new().await;
    let (mut socket, uuid) = bench.running().await;
    let start = Instant::now();
    socket.send(&cancel(&uuid)).await;
    is_cancelled(socket).await;
    assert!(start.elapsed() < NOISE, "{:?}", start.elapsed());
    // Not a moment later: the frame says that it is over.
    let left = processes_of(&uuid);
    assert!(left.is_empty(), "{left:?}");
    bench.assert_nothing_left(&uuid).await;
    assert_eq!(*bench.service.run("tool", "marking", json!({})).await.output(), json!(2));
}

#[tokio::test]
async fn a_client_ends_its_queued_execution_which_never_runs() {
    let bench = Bench::new().await;
    let (running, running_uuid) = bench.running().await;
    let (mut queued, uuid) = bench.queued().await;
    queued.send(&cancel(&uuid)).await;
    is_cancelled(queued).await;
    assert!(!processes_of(&running_uuid).is_empty(), "the other one goes on");
    bench.gate.open();
    assert_eq!(running.rest().await.last()["output"], json!(1));
    // What comes after it would come after the one that was cancelled, too.
    bench.service.run("tool", "marking", json!({})).await.output();
    assert_eq!(bench.marks(), 2);
}

#[tokio::test]
async fn a_cancel_ends_nothing_but_the_execution_of_its_own_connection() {
    let bench = Bench::new().await;
    let (mut running, running_uuid) = bench.running().await;
    let (mut queued, queued_uuid) = bench.queued().await;
    let others = [cancel(&queued_uuid), cancel("x"), json!({ "cancel": true }).to_string(), "x".to_owned()];
    for text in others {
        running.send(&text).await;
    }
    queued.send(&cancel(&running_uuid)).await;
    bench.gate.open();
    for (socket, output) in [(running, 1), (queued, 2)] {
        let talk = socket.rest().await;
        assert_eq!(talk.last()["output"], json!(output));
        // However many came, it is told once.
        assert_eq!(talk.frames.iter().filter(|frame| frame["event"] == "ignored").count(), 1, "{talk:?}");
    }
}

#[tokio::test]
async fn a_cancel_that_comes_with_the_acceptance_is_kept() {
    let bench = Bench::new().await;
    let (mut socket, uuid) = accepted(&bench.service, "waiting", json!({}), json!({})).await;
    for _ in 0..3 {
        socket.send(&cancel(&uuid)).await;
    }
    is_cancelled(socket).await;
    bench.assert_nothing_left(&uuid).await;
}

#[tokio::test]
async fn rest_ends_a_running_execution_once() {
    let bench = Bench::new().await;
    let (socket, uuid) = bench.running().await;
    let (status, answer) = bench.delete(&uuid).await;
    assert_eq!((status, &answer["success"]), (200, &json!(true)), "{answer}");
    assert_eq!(answer["data"]["uuid"], json!(uuid));
    is_cancelled(socket).await;
    bench.assert_nothing_left(&uuid).await;
    let (status, answer) = bench.delete(&uuid).await;
    assert_eq!((status, &answer["code"]), (409, &json!("conflict")), "{answer}");
}

#[tokio::test]
async fn rest_ends_a_queued_execution_once() {
    let bench = Bench::new().await;
    let (running, _) = bench.running().await;
    let (queued, uuid) = bench.queued().await;
    assert_eq!(bench.delete(&uuid).await.0, 200);
    is_cancelled(queued).await;
    assert_eq!(bench.delete(&uuid).await.0, 409);
    bench.gate.open();
    assert_eq!(running.rest().await.last()["output"], json!(1));
    assert_eq!(bench.marks(), 1);
}

#[tokio::test]
async fn rest_says_which_execution_it_does_not_know() {
    let bench = Bench::new().await;
    let talk = bench.service.run("tool", "marking", json!({})).await;
    assert_eq!(bench.delete(talk.uuid().unwrap()).await.0, 409, "it has ended");
    let unknown = uuid::Uuid::now_v7().to_string();
    for (uuid, status, code) in [(unknown.as_str(), 404, "not_found"), ("nonsense", 400, "invalid")] {
        let (told, answer) = bench.delete(uuid).await;
        assert_eq!((told, &answer["code"]), (status, &json!(code)), "{uuid}: {answer}");
        assert_eq!(answer["success"], false, "{uuid}: {answer}");
    }
}

fn ends_with_its_client() -> Launch {
    Launch::new().limits().set("WEBSOCKET__ON_DISCONNECT", "cancel")
}

#[tokio::test]
async fn an_execution_ends_with_its_clients_connection_where_that_is_configured() {
    let bench = Bench::on(ends_with_its_client()).await;
    // Without a word.
    let (socket, uuid) = bench.running().await;
    drop(socket);
    eventually("it is ended", NOISE, || processes_of(&uuid).is_empty()).await;
    bench.assert_nothing_left(&uuid).await;
}

#[tokio::test]
async fn an_execution_ends_when_its_client_closes_where_that_is_configured() {
    let bench = Bench::on(ends_with_its_client()).await;
    let (mut socket, uuid) = bench.running().await;
    socket.send_message(tokio_tungstenite::tungstenite::Message::Close(None)).await;
    let talk = socket.rest().await;
    assert!(talk.frames.is_empty(), "{talk:?}");
    eventually("it is ended", NOISE, || processes_of(&uuid).is_empty()).await;
    bench.assert_nothing_left(&uuid).await;
}

#[tokio::test]
async fn a_queued_execution_whose_client_left_never_runs_where_that_is_configured() {
    let bench = Bench::on(ends_with_its_client()).await;
    let (running, _) = bench.running().await;
    let (queued, uuid) = bench.queued().await;
    drop(queued);
    bench.is_queue_empty().await;
    assert_eq!(bench.delete(&uuid).await.0, 409);
    bench.gate.open();
    assert_eq!(running.rest().await.last()["output"], json!(1));
    assert_eq!(bench.marks(), 1);
}

#[tokio::test]
async fn an_execution_that_ended_well_is_not_touched_by_its_clients_leaving() {
    let bench = Bench::on(ends_with_its_client()).await;
    for marks in 2..6 {
        let talk = bench.service.run("tool", "marking", json!({})).await;
        assert_eq!(*talk.output(), json!(2));
        assert_eq!(bench.marks(), marks);
        assert_eq!(bench.delete(talk.uuid().unwrap()).await.0, 409);
    }
}
