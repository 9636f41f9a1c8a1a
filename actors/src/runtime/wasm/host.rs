//! What stands behind a guest while it runs: its view of WASI, its memory, its processor time, and how it failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wasmtime::{PoolConcurrencyLimitError, ResourceLimiterAsync, Store, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, ResourceTableError, WasiCtxBuilder, WasiCtxView, WasiView};

use super::engine::Engine;
use super::ticker::TICK;
use crate::egress::Egress;
use crate::execution::{Job, Outcome};
use crate::runtime::bounds::Bounds;

/// After how many ticks a guest yields for the first time: with one, a call that begins just before a tick would yield
/// without having used any time.
const FIRST_TICKS: u64 = 2;

/// With more memory than this a guest runs in a thread of its own from then on: it looks around at ticks only, and not
/// while it fills or copies memory in one instruction.
const LARGE: usize = 64 << 20;

/// How many streams and the like a guest may hold besides its files.
const MORE_HANDLES: usize = 64;

/// A guest's folders: where they are, and where it sees them.
pub type Folders = Vec<(PathBuf, String)>;

/// What a store holds besides the guest itself.
pub struct Host {
    wasi: WasiP1Ctx,
    memory: Memory,
    ticks: u64,
    max_ticks: u64,
    has_yielded: Yielded,
}

/// Whether a guest has used up its first ticks, or is large; known without its store, which belongs to the running future.
#[derive(Clone, Debug, Default)]
pub struct Yielded(Arc<AtomicBool>);

impl Yielded {
    /// Whether it has.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, has_yielded: bool) {
        self.0.store(has_yielded, Ordering::Relaxed);
    }
}

impl Host {
    /// A store for one guest. Its memory is bounded for good, its time by [`Host::begin`].
    pub fn store(engine: &Engine, mut wasi: WasiP1Ctx, bounds: &Bounds) -> Store<Self> {
        // Each file that it holds is one of the service.
        let handles = usize::try_from(bounds.files).unwrap_or(usize::MAX).saturating_add(MORE_HANDLES);
        wasi.ctx().table.set_max_capacity(handles);
        let limit = usize::try_from(bounds.memory_bytes).unwrap_or(usize::MAX);
        let has_yielded = Yielded::default();
        let memory = Memory { held: 0, limit, is_refused: false, has_yielded: has_yielded.clone() };
        let host = Self { wasi, memory, ticks: 0, max_ticks: 0, has_yielded };
        let mut store = Store::new(engine.wasmtime(), host);
        store.limiter_async(|host| &mut host.memory);
        store.epoch_deadline_callback(|mut store| store.data_mut().tick());
        store.set_max_component_handles(handles);
        store
    }

    /// A run begins.
    pub fn begin(store: &mut Store<Self>, bounds: &Bounds) {
        store.set_epoch_deadline(FIRST_TICKS);
        let host = store.data_mut();
        let ticks = |cpu: std::time::Duration| cpu.as_nanos().div_ceil(TICK.as_nanos());
        host.max_ticks = bounds.cpu.map_or(u64::MAX, |cpu| u64::try_from(ticks(cpu)).unwrap_or(u64::MAX));
        host.ticks = 0;
        host.memory.is_refused = false;
        host.has_yielded.set(host.memory.held > LARGE);
    }

    /// Whether it was refused memory since the run began.
    pub fn is_out_of_memory(&self) -> bool {
        self.memory.is_refused
    }

    /// To know of its yields.
    pub fn yielded(&self) -> Yielded {
        self.has_yielded.clone()
    }

    /// WASI for modules.
    pub fn wasi(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }

    fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        self.has_yielded.set(true);
        self.ticks += 1;
        if self.ticks > self.max_ticks {
            return Err(wasmtime::Error::new(OutOfTime));
        }
        Ok(UpdateDeadline::Yield(1))
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// All linear memories and tables of a store, in bytes. A growth that is allowed and then fails counts all the same.
#[derive(Debug)]
pub struct Memory {
    held: usize,
    limit: usize,
    is_refused: bool,
    has_yielded: Yielded,
}

impl Memory {
    /// The most of each kind that one guest may have, since each takes address space or a place in the pool.
    pub const MAX_MEMORIES: usize = 16;
    /// As [`Memory::MAX_MEMORIES`].
    pub const MAX_TABLES: usize = 64;
    /// As [`Memory::MAX_MEMORIES`].
    pub const MAX_INSTANCES: usize = 256;

    fn grow(&mut self, by: usize, is_within: bool) -> bool {
        if !is_within {
            return false;
        }
        let held = self.held.saturating_add(by);
        self.is_refused |= held > self.limit;
        if held <= self.limit {
            self.held = held;
        }
        held <= self.limit
    }

    /// Has a guest that became large leave the worker of the service on which it runs.
    async fn leave(&self) {
        if self.held > LARGE && !self.has_yielded.get() {
            self.has_yielded.set(true);
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait::async_trait]
impl ResourceLimiterAsync for Memory {
    async fn memory_growing(&mut self, from: usize, to: usize, max: Option<usize>) -> wasmtime::Result<bool> {
        let may_grow = self.grow(to.saturating_sub(from), max.is_none_or(|max| to <= max));
        self.leave().await;
        Ok(may_grow)
    }

    async fn table_growing(&mut self, from: usize, to: usize, max: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = to.saturating_sub(from).saturating_mul(size_of::<usize>());
        Ok(self.grow(bytes, max.is_none_or(|max| to <= max)))
    }

    fn memories(&self) -> usize {
        Self::MAX_MEMORIES
    }

    fn tables(&self) -> usize {
        Self::MAX_TABLES
    }

    fn instances(&self) -> usize {
        Self::MAX_INSTANCES
    }
}

/// It used as much processor time as it may.
#[derive(Debug)]
struct OutOfTime;

impl std::fmt::Display for OutOfTime {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the processor time is used up")
    }
}

impl std::error::Error for OutOfTime {}

/// What a guest sees of the world: nothing but its definition's environment, and what that definition grants.
///
/// # Errors
/// The outcome: a folder cannot be opened.
pub fn wasi(
    job: &Job,
    folders: &Folders,
    egress: &Egress,
    own: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<WasiCtxBuilder, Outcome> {
    let mut env: BTreeMap<&str, &str> = BTreeMap::new();
    let spec = &job.definition.spec;
    env.extend(spec.program.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    env.extend(job.secrets.variables());
    let own: Vec<_> = own.into_iter().collect();
    // After the definition's own, which must not hide whose run this is.
    env.extend(own.iter().map(|(name, value)| (*name, value.as_str())));
    env.insert("ORG_DEFINITION", &job.definition.id);

    let mut wasi = WasiCtxBuilder::new();
    for (name, value) in env {
        wasi.env(name, value);
    }
    for (place, path) in folders {
        if let Err(error) = wasi.preopened_dir(place, path, FsPerms::ReadOnly) {
            tracing::warn!(place = %place.display(), %error, "a folder of a definition cannot be opened");
            let message = format!("the folder that it sees as {path} cannot be opened");
            return Err(Outcome::failed("not_startable", message));
        }
    }
    if spec.grants.network {
        let egress = egress.clone();
        wasi.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
        wasi.socket_addr_check(move |address, usage| {
            let may = may_use(&egress, address, usage);
            Box::pin(std::future::ready(may))
        });
    } else {
        wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
    }
    Ok(wasi)
}

/// A guest reaches what functions reach, and nobody reaches a guest: sockets are bound for asking only.
fn may_use(egress: &Egress, address: SocketAddr, usage: SocketAddrUse) -> bool {
    match usage {
        SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
            address.ip().is_unspecified() && address.port() == 0
        }
        SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => false,
        _ => egress.reaches(address),
    }
}

/// How a guest failed.
#[derive(Debug)]
pub enum Fault {
    /// Told in full.
    Outcome(Outcome),
    /// By itself: the end of its log may say more.
    Own { code: &'static str, message: String },
}

impl Fault {
    /// What an error of wasmtime means.
    pub fn of(error: &wasmtime::Error, host: &Host, bounds: &Bounds) -> Self {
        if error.is::<OutOfTime>() {
            Self::Outcome(bounds.cpu_exceeded())
        } else if host.is_out_of_memory() {
            Self::Outcome(bounds.memory_exceeded())
        } else if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
            Self::Outcome(bounds.files_exceeded())
        } else if error.is::<PoolConcurrencyLimitError>() {
            let message = "there are as many WebAssembly instances as there may be";
            Self::Outcome(Outcome::failed("unavailable", message))
        } else {
            let cause = error.root_cause().to_string();
            let cause = cause.lines().next().unwrap_or_default();
            let cause = cause.strip_prefix("wasm trap: ").unwrap_or(cause);
            Self::Own { code: "trap", message: format!("the module trapped: {cause}") }
        }
    }

    /// The outcome, with the end of its log where that may say more.
    pub fn outcome(self, tail: &str) -> Outcome {
        match self {
            Self::Outcome(outcome) => outcome,
            Self::Own { code, message } if tail.is_empty() => Outcome::failed(code, message),
            Self::Own { code, message } => Outcome::failed(code, format!("{message}: {tail}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memories_and_tables_share_one_bound() {
        let mut memory = Memory { held: 0, limit: 1_000, is_refused: false, has_yielded: Yielded::default() };
        assert!(memory.memory_growing(0, 800, None).await.expect("an answer"));
        assert!(!memory.memory_growing(800, 900, Some(850)).await.expect("an answer"));
        assert!(!memory.is_refused, "its own maximum is not ours");
        assert!(!memory.table_growing(0, 26, None).await.expect("an answer"));
        assert!(memory.is_refused);
        assert!(memory.table_growing(0, 25, None).await.expect("an answer"));
        assert_eq!(memory.held, 1_000);
        assert!(!memory.has_yielded.get());
    }

    #[tokio::test]
    async fn a_guest_that_becomes_large_leaves_its_worker() {
        let mut memory =
            Memory { held: 0, limit: usize::MAX, is_refused: false, has_yielded: Yielded::default() };
        assert!(memory.memory_growing(0, LARGE, None).await.expect("an answer"));
        assert!(!memory.has_yielded.get());
        assert!(memory.memory_growing(LARGE, LARGE + 1, None).await.expect("an answer"));
        assert!(memory.has_yielded.get());
    }

    #[test]
    fn a_guest_asks_public_addresses_and_is_asked_by_nobody() {
        let egress = Egress::new(vec!["127.0.0.1:9".parse().expect("an entry")]).expect("a way out");
        let may = |address: &str, usage| may_use(&egress, address.parse().expect("an address"), usage);
        use SocketAddrUse::{TcpAccept, TcpBind, TcpConnect, TcpListen, UdpBind, UdpReceive, UdpSend};
        for usage in [TcpConnect, UdpSend, UdpReceive] {
            assert!(may("8.8.8.8:53", usage) && may("127.0.0.1:9", usage));
            for refused in
                ["127.0.0.1:10", "10.0.0.1:53", "169.254.169.254:80", "[::1]:9", "[::ffff:127.0.0.1]:10"]
            {
                assert!(!may(refused, usage), "{refused}");
            }
        }
        assert!(may("0.0.0.0:0", TcpBind) && may("[::]:0", UdpBind));
        assert!(!may("0.0.0.0:80", TcpBind) && !may("127.0.0.1:0", UdpBind));
        assert!(!may("0.0.0.0:0", TcpListen) && !may("8.8.8.8:1", TcpAccept));
    }
}
