//! What all guests share: the compiler, the pool that instances come from, the clock, and the code compiled so far, in
//! memory by its content and on disk by wasmtime's own cache.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{self, Component, ComponentExportIndex, Type};
use wasmtime::{
    CacheConfig, CodeBuilder, CodeHint, Config, ExternType, InstancePre, Module, PoolingAllocationConfig,
};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{p1, p2};

use super::host::Host;
use super::ticker::{Running, Ticker};
use crate::execution::Outcome;
use crate::settings::{LimitSettings, WasmSettings};

/// How many pieces of compiled code are kept in memory.
const MAX_COMPILED: usize = 256;

/// How many sources are compiled at one time; each takes all processors that it can get.
const MAX_COMPILING: usize = 2;

/// The most that a linear memory can be: what 32 bits can address.
const MAX_MEMORY: u64 = 1 << 32;

/// The largest table: programs of some languages have tens of thousands of functions.
const TABLE_ELEMENTS: usize = 100_000;

/// What is at the root of a definition's code, ready to be instantiated.
pub enum Code {
    /// A module with `_start`.
    Module(InstancePre<Host>),
    /// A component of the world `wasi:cli/command`.
    Command(CommandPre<Host>),
    /// A component with `run: func(input: string) -> result<string, string>`.
    Function(Function),
}

/// A component, and where its `run` is.
#[derive(Clone)]
pub struct Function {
    /// The component.
    pub component: component::InstancePre<Host>,
    /// Its export `run`.
    pub run: ComponentExportIndex,
}

/// Shared by all wasm executors.
pub struct Engine {
    shared: Arc<Shared>,
    ticker: Arc<Ticker>,
    max_runs: u64,
}

struct Shared {
    engine: wasmtime::Engine,
    modules: wasmtime::Linker<Host>,
    components: component::Linker<Host>,
    compiled: Cache<Key, Arc<Code>>,
    compiling: Semaphore,
}

/// The hash of a source, and the file in it: an archive may hold several.
type Key = (String, PathBuf);

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Engine")
            .field("compiled", &self.shared.compiled.len())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// `cache` is a folder for compiled code, made if it is missing. What is in it is run as it is: nobody else may
    /// write there.
    ///
    /// # Errors
    /// One sentence: the folder cannot be made, or there can be no engine on this machine.
    pub fn new(settings: &WasmSettings, limits: &LimitSettings, cache: &Path) -> Result<Self, String> {
        let failed = |error: wasmtime::Error| format!("WebAssembly cannot be had: {}", first_line(&error));
        let engine = start(settings, limits, cache).map_err(failed)?;
        let mut modules = wasmtime::Linker::new(&engine);
        p1::add_to_linker_async(&mut modules, Host::wasi).map_err(failed)?;
        let mut components = component::Linker::new(&engine);
        p2::add_to_linker_async(&mut components).map_err(failed)?;
        let ticker = Ticker::start(engine.weak())
            .map_err(|error| format!("the clock of WebAssembly cannot be started: {error}"))?;
        let (compiled, compiling) = (Cache::new(MAX_COMPILED), Semaphore::new(MAX_COMPILING));
        let shared = Shared { engine, modules, components, compiled, compiling };
        Ok(Self { shared: Arc::new(shared), ticker, max_runs: settings.max_runs })
    }

    /// The code in that file, compiled; by one of those that ask at the same time. Whoever asked may go: the work is
    /// done for the next.
    ///
    /// # Errors
    /// The outcome: it is no code, or none that can be run.
    pub async fn code(&self, file: &Path, pin: &str) -> Result<Arc<Code>, Outcome> {
        let key: Key = (pin.to_owned(), file.to_owned());
        if let Some(code) = self.shared.compiled.get(&key) {
            return Ok(code);
        }
        let shared = self.shared.clone();
        let once = async move {
            let compile = shared.clone().compile_aside(key.1.clone());
            shared.compiled.get_or_insert_async(&key, compile).await
        };
        let code = tokio::spawn(once).await.unwrap_or_else(|error| Err(error.to_string()));
        code.map_err(|problem| Outcome::failed("not_startable", problem))
    }

    /// A guest begins to run.
    pub fn running(&self) -> Running {
        self.ticker.running()
    }

    /// Wasmtime's own.
    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.shared.engine
    }

    /// After how many runs the instance of a component is replaced.
    pub fn max_runs(&self) -> u64 {
        self.max_runs
    }
}

fn start(
    settings: &WasmSettings,
    limits: &LimitSettings,
    cache: &Path,
) -> wasmtime::Result<wasmtime::Engine> {
    std::fs::create_dir_all(cache)?;
    let mut folder = CacheConfig::new();
    folder.with_directory(cache.canonicalize()?);
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // Nothing here runs more than one call of an instance at a time, and each call would pay for it.
        .concurrency_support(false)
        // Nobody is shown one.
        .wasm_backtrace_max_frames(None)
        .cache(Some(wasmtime::Cache::new(folder)?))
        .allocation_strategy(pool(settings, limits));
    wasmtime::Engine::new(&config).or_else(|error| {
        let reason = first_line(&error);
        tracing::warn!(
            reason,
            "no pool of WebAssembly instances can be had; each takes its memory by itself"
        );
        config.allocation_strategy(wasmtime::InstanceAllocationStrategy::OnDemand);
        wasmtime::Engine::new(&config)
    })
}

/// Address space for that many instances; memory is taken only as they use it.
fn pool(settings: &WasmSettings, limits: &LimitSettings) -> PoolingAllocationConfig {
    let instances = settings.max_instances.max(1);
    let memory = limits.max_memory_mb.saturating_mul(1 << 20).min(MAX_MEMORY);
    let mut pool = PoolingAllocationConfig::new();
    // Each guest has one stack. A component is made of several modules, and they may have memories and tables; so there
    // is always room for one guest with as many as it may have.
    pool.total_component_instances(instances)
        .total_stacks(instances)
        .total_memories(instances.saturating_add(16))
        .total_core_instances(instances.saturating_mul(16).saturating_add(256))
        .total_tables(instances.saturating_mul(4).saturating_add(64))
        .table_elements(TABLE_ELEMENTS)
        .max_tables_per_module(4)
        .max_memories_per_module(4)
        .max_memory_size(usize::try_from(memory).unwrap_or(usize::MAX));
    pool
}

impl Shared {
    async fn compile_aside(self: Arc<Self>, file: PathBuf) -> Result<Arc<Code>, String> {
        let shared = self.clone();
        let _permit = self.compiling.acquire().await.expect("it is never closed");
        let compile = move || shared.compile(&file).map(Arc::new);
        tokio::task::spawn_blocking(compile).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn compile(&self, file: &Path) -> Result<Code, String> {
        let bytes = std::fs::read(file).map_err(|error| format!("the source cannot be read: {error}"))?;
        let told = |error: wasmtime::Error| format!("the source is no WebAssembly: {}", first_line(&error));
        let mut builder = CodeBuilder::new(&self.engine);
        builder.wasm_binary_or_text(&bytes, None).map_err(told)?;
        if matches!(builder.hint(), Some(CodeHint::Component)) {
            self.component(&builder.compile_component().map_err(told)?)
        } else {
            self.module(&builder.compile_module().map_err(told)?)
        }
    }

    fn module(&self, module: &Module) -> Result<Code, String> {
        let start = module.get_export("_start");
        if !start.is_some_and(|export| is_start(&export)) {
            return Err(no_entry());
        }
        self.modules.instantiate_pre(module).map(Code::Module).map_err(|error| unlinked(&error))
    }

    fn component(&self, component: &Component) -> Result<Code, String> {
        let run = match component.get_export(None, "run") {
            Some((ComponentItem::ComponentFunc(function), index)) if is_run(&function) => Some(index),
            _ => None,
        };
        let linked = || self.components.instantiate_pre(component).map_err(|error| unlinked(&error));
        match run {
            Some(run) => Ok(Code::Function(Function { component: linked()?, run })),
            None if is_command(self, component) => {
                CommandPre::new(linked()?).map(Code::Command).map_err(|error| unlinked(&error))
            }
            None => Err(no_entry()),
        }
    }
}

fn is_start(export: &ExternType) -> bool {
    export.func().is_some_and(|start| start.params().len() == 0 && start.results().len() == 0)
}

fn is_run(function: &ComponentFunc) -> bool {
    let is_text = |text: Option<Type>| text == Some(Type::String);
    let params = function.params().map(|(_, param)| param).collect::<Vec<_>>();
    let results = function.results().collect::<Vec<_>>();
    let is_answer = match results.as_slice() {
        [Type::Result(answer)] => is_text(answer.ok()) && is_text(answer.err()),
        _ => false,
    };
    params == [Type::String] && is_answer && !function.async_()
}

fn is_command(shared: &Shared, component: &Component) -> bool {
    let is_run = |name: &str| name.starts_with("wasi:cli/run@0.2.");
    component.component_type().exports(&shared.engine).any(|(name, _)| is_run(name))
}

fn no_entry() -> String {
    "the module exports neither `_start` nor `run: func(input: string) -> result<string, string>`".into()
}

fn unlinked(error: &wasmtime::Error) -> String {
    format!("the module needs what is not there: {}", first_line(error))
}

fn first_line(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().trim_end_matches(':').to_owned()
}
