//! Accepts the connections of both ports: a bounded number in all, and of each address. What is beyond the first bound waits
//! in the kernel's queue; what is beyond the second is told so, where that costs nothing, and closed. It never waits for a
//! client, and does not spin when the process has no descriptor left.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::error::{Code, Error};
use ipnet::IpNet;
use metrics::{counter, describe_counter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::envelope::{headers, refusal, status};

/// How long nothing is accepted after accepting failed.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it is logged that accepting fails.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How many connections a port takes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// In all.
    pub all: usize,
    /// Of one address.
    pub per_address: usize,
    /// The addresses that may have any number.
    pub unlimited: Vec<IpNet>,
}

/// Says what is counted here, for whoever reads `/metrics`.
pub fn describe() {
    describe_counter!(
        "connections_refused_total",
        "Connections that were closed at once because their address had too many, by port"
    );
    describe_counter!(
        "accept_failures_total",
        "How often a connection could not be accepted, for lack of descriptors for example, by port"
    );
}

/// A port that connections are taken from.
pub struct Accept {
    listener: TcpListener,
    port: &'static str,
    admission: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    /// What the one connection too many is told; nothing where it would have to be encrypted.
    answer: Option<String>,
    failures: Failures,
}

/// The place of a connection among those that were taken. It is free again when this is dropped.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _address: Option<Counted>,
}

impl Accept {
    /// Takes over a bound listener. `port` is its name in the metrics; a client of a port with TLS gets no answer in plain text.
    pub fn new(listener: TcpListener, port: &'static str, limits: Limits, has_tls: bool) -> Self {
        let admission = Arc::new(Semaphore::new(limits.all));
        let answer = (!has_tls).then(too_many);
        let (per_address, unlimited) = (limits.per_address, limits.unlimited);
        let addresses = Arc::new(Addresses { per_address, unlimited, open: Mutex::default() });
        Self { listener, port, admission, addresses, answer, failures: Failures::default() }
    }

    /// The next connection.
    ///
    /// # Errors
    /// The port is closed, which it is never while this lives.
    async fn next(&mut self) -> io::Result<(TcpStream, SocketAddr, Place)> {
        let permit = self.admission.clone().acquire_owned().await.map_err(io::Error::other)?;
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    counter!("accept_failures_total", "port" => self.port).increment(1);
                    self.failures.tell(self.port, &error);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(address) = self.addresses.take(peer.ip()) else {
                counter!("connections_refused_total", "port" => self.port).increment(1);
                self.refuse(stream);
                continue;
            };
            // Without it only a delay is lost.
            let _ = stream.set_nodelay(true);
            return Ok((stream, peer, Place { _permit: permit, _address: address }));
        }
    }

    /// The next connection until the service shuts down; none then. Of connections that have ended it lets go meanwhile.
    pub async fn next_until(
        &mut self,
        closed: &mut watch::Receiver<bool>,
        connections: &mut JoinSet<()>,
    ) -> Option<(TcpStream, SocketAddr, Place)> {
        loop {
            tokio::select! {
                _ = closed.wait_for(|closing| *closing) => return None,
                Some(_) = connections.join_next() => {}
                accepted = self.next() => return accepted.ok(),
            }
        }
    }

    /// Writes the answer into the kernel's buffer, which is empty and takes it at once. Who does not get it sees the close.
    fn refuse(&self, stream: TcpStream) {
        if let (Some(answer), Ok(mut stream)) = (&self.answer, stream.into_std()) {
            let _ = stream.write_all(answer.as_bytes());
        }
    }
}

/// A whole answer of HTTP/1.1.
fn too_many() -> String {
    let error = Error::new(Code::Overloaded, "this address has too many connections open");
    let body = refusal(&error);
    let more = headers(&error).map_or_else(String::new, |(name, value)| {
        format!("{name}: {}\r\n", value.to_str().unwrap_or_default())
    });
    format!(
        "HTTP/1.1 {}\r\n{more}content-type: application/json; charset=utf-8\r\ncontent-length: {}\r\nconnection: \
         close\r\n\r\n{body}",
        status(error.code()),
        body.len()
    )
}

/// How many connections each address has.
struct Addresses {
    per_address: usize,
    unlimited: Vec<IpNet>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// That an address has too many.
#[derive(Debug)]
struct TooMany;

/// One connection of an address.
struct Counted {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    /// Counts one more; nothing is counted of an address that may have any number.
    fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Option<Counted>, TooMany> {
        let peer = peer.to_canonical();
        if self.unlimited.iter().any(|network| network.contains(&peer)) {
            return Ok(None);
        }
        let address = counted_as(peer);
        let mut all = self.open();
        let open = all.entry(address).or_default();
        if *open >= self.per_address {
            return Err(TooMany);
        }
        *open += 1;
        drop(all);
        Ok(Some(Counted { addresses: self.clone(), address }))
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.addresses.open();
        if let Some(open) = all.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.address);
            }
        }
    }
}

/// Whoever has one address of IPv6 has the 2^64 beside it, so these count together.
fn counted_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Failures to accept, which come twenty a second where there is no descriptor left.
#[derive(Default)]
struct Failures {
    told: Option<Instant>,
    untold: u64,
}

impl Failures {
    fn tell(&mut self, port: &str, error: &io::Error) {
        self.untold += 1;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            tracing::warn!(port, %error, times = self.untold, "connections could not be accepted");
            (self.told, self.untold) = (Some(Instant::now()), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(per_address: usize, unlimited: &[&str]) -> Arc<Addresses> {
        let unlimited = unlimited.iter().map(|text| text.parse().expect("a network")).collect();
        Arc::new(Addresses { per_address, unlimited, open: Mutex::default() })
    }

    #[test]
    fn an_address_has_so_many_at_a_time_and_its_neighbour_as_many() {
        let addresses = addresses(2, &["192.0.2.0/24"]);
        let take = |text: &str| addresses.take(text.parse().expect("an address"));
        let one = take("10.0.0.1").ok();
        let _two = take("::ffff:10.0.0.1").expect("the second");
        assert!(take("10.0.0.1").is_err() && take("10.0.0.2").is_ok());
        drop(one);
        assert!(take("10.0.0.1").is_ok());
        let free: Vec<_> = (0..9).map(|_| take("192.0.2.7")).collect();
        assert!(free.iter().all(|taken| matches!(taken, Ok(None))));
        assert_eq!(addresses.open().len(), 1);
    }

    #[test]
    fn the_addresses_of_one_network_of_ipv6_count_together() {
        let addresses = addresses(1, &[]);
        let take = |text: &str| addresses.take(text.parse().expect("an address"));
        let _held = take("2001:db8::1").expect("the first");
        assert!(take("2001:db8::2:1").is_err() && take("2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn what_one_too_many_is_told_is_an_answer() {
        let answer = too_many();
        assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(answer.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
    }
}
