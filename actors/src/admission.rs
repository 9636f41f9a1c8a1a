//! Admission: mailboxes are unbounded, so a place comes before the message, and travels with it.
//!
//! While there are none, requests wait in turn for a moment. Turns go round among clients: of each client one request
//! waits for the next place, all others behind it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Code, Error, Result};
use crate::execution::Client;

/// How long a request waits for its turn.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How many requests of one client, and of all together, may wait.
const OWN: usize = 16_384;
const ALL: usize = 65_536;

/// The places of one mailbox, and who waits for one.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    /// For each client that has requests waiting, the line in which they stand.
    lines: Mutex<HashMap<Client, Arc<Line>>>,
    waiting: AtomicUsize,
    patience: Duration,
}

#[derive(Debug)]
struct Line {
    front: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
}

impl Admission {
    /// So many places.
    pub fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            lines: Mutex::new(HashMap::new()),
            waiting: AtomicUsize::new(0),
            patience: PATIENCE,
        }
    }

    /// A place, when there is one at once.
    ///
    /// # Errors
    /// `overloaded`.
    pub fn at_once(&self) -> Result<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().map_err(|_| full())
    }

    /// A place, as soon as it is this client's turn.
    ///
    /// # Errors
    /// `overloaded` where that takes too long, or too many wait already.
    pub async fn in_turn(&self, client: Client) -> Result<OwnedSemaphorePermit> {
        // One that comes free goes to whoever waits, so that nobody overtakes here.
        if let Ok(place) = self.at_once() {
            return Ok(place);
        }
        let waiting = self.stand(client)?;
        let turn = async {
            let _front = waiting.line.front.lock().await;
            self.places.clone().acquire_owned().await
        };
        match tokio::time::timeout(self.patience, turn).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(full()),
        }
    }

    fn stand(&self, client: Client) -> Result<Waiting<'_>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Line { front: tokio::sync::Mutex::new(()), waiting: AtomicUsize::new(0) });
        let line = lines.entry(client).or_insert_with(new).clone();
        let (own, all) =
            (line.waiting.fetch_add(1, Ordering::AcqRel), self.waiting.fetch_add(1, Ordering::AcqRel));
        let waiting = Waiting { admission: self, client, line };
        // Leaving takes the lines again.
        drop(lines);
        if own >= OWN || all >= ALL { Err(full()) } else { Ok(waiting) }
    }
}

/// A request that stands in its client's line.
struct Waiting<'a> {
    admission: &'a Admission,
    client: Client,
    line: Arc<Line>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut lines = self.admission.lines.lock().unwrap_or_else(PoisonError::into_inner);
        self.admission.waiting.fetch_sub(1, Ordering::AcqRel);
        if self.line.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            lines.remove(&self.client);
        }
    }
}

fn full() -> Error {
    Error::new(Code::Overloaded, "the service has as many requests as it takes; try again later")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};

    use super::*;

    fn client(number: u8) -> Client {
        Client::Address(Ipv4Addr::new(127, 0, 0, number).into())
    }

    #[tokio::test]
    async fn places_that_come_free_go_round_among_clients() {
        let admission = Admission::new(1);
        let mut place = Some(admission.in_turn(client(1)).await.expect("a place is free"));
        assert_eq!(admission.at_once().expect_err("none is free").code(), Code::Overloaded);
        let waiting = FuturesUnordered::new();
        for (name, number) in [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2), ("b2", 2), ("c1", 3)] {
            let turn = admission.in_turn(client(number)).map(move |place| (name, place.expect("its turn")));
            waiting.push(turn);
        }
        let mut waiting = waiting;
        // All stand in their lines before the first place comes free.
        assert!(waiting.next().now_or_never().is_none());
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(place.take());
            let (name, next) = waiting.next().await.expect("somebody waits");
            order.push(name);
            place = Some(next);
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(admission.lines.lock().expect("not poisoned").is_empty());
        assert_eq!(admission.waiting.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn who_waits_for_too_long_is_refused() {
        let admission = Admission { patience: Duration::from_millis(20), ..Admission::new(1) };
        let place = admission.at_once().expect("a place is free");
        let late = admission.in_turn(client(1)).await.expect_err("it never comes free");
        assert_eq!(late.code(), Code::Overloaded);
        drop(place);
        drop(admission.in_turn(client(1)).await.expect("it came free"));
    }

    #[tokio::test]
    async fn one_client_cannot_take_all_the_room_for_waiting() {
        let admission = Admission::new(1);
        let place = admission.at_once().expect("a place is free");
        let mut waiting: FuturesUnordered<_> = (0..=OWN).map(|_| admission.in_turn(client(1))).collect();
        let first = waiting.next().now_or_never().flatten().expect("the last of them");
        assert_eq!(first.expect_err("one too many").code(), Code::Overloaded);
        let mut other = std::pin::pin!(admission.in_turn(client(2)));
        assert!(other.as_mut().now_or_never().is_none(), "another client may wait");
        drop((waiting, place));
        drop(other.await.expect("its turn"));
    }
}
