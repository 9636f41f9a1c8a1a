//! What all guests share: the compiler, the pool that instances come from, the clock, and the code compiled so far, in
//! memory by its content and on disk by wasmtime's own cache.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{self, Component, ComponentExportIndex, Type};
use wasmtime::{
    CacheConfig, CodeBuilder, CodeHint, Config, ExternType, InstancePre, Module, PoolingAllocationConfig,
};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{p1, p2};

use super::compiler::{Compiler, Failure};
use super::host::{Host, Memory};
use super::ticker::{Running, Ticker};
use crate::execution::Outcome;
use crate::runtime::files;
use crate::settings::{LimitSettings, WasmSettings};

/// How many pieces of compiled code there are about in memory, for the tables of the cache: its bound is in bytes.
const COMPILED: usize = 256;

/// What a piece weighs besides its code, in bytes: its types, its names, what it is linked to.
const PIECE_BYTES: u64 = 16 * 1024;

/// How many sources are known that no compiler could compile within its bounds, and for how long.
const MAX_HOPELESS: usize = 256;
const HOPELESS: Duration = Duration::from_secs(60);

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
    max_files: u64,
}

struct Shared {
    plan: Plan,
    engine: wasmtime::Engine,
    modules: wasmtime::Linker<Host>,
    components: component::Linker<Host>,
    compiled: Cache<Key, Arc<Code>, Weigh>,
    /// What was tried in vain, when and why.
    hopeless: Cache<Key, (Instant, String)>,
    compiling: Semaphore,
    /// None where it is done in this process: a test of the engine has no binary.
    compiler: Option<Compiler>,
}

/// What an engine is made of. One by the same plan finds what this one compiled in the cache on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    cache: PathBuf,
    instances: u32,
    executors: u32,
    memory_bytes: u64,
}

/// Weighs compiled code by its size.
#[derive(Clone, Copy)]
struct Weigh;

impl Weighter<Key, Arc<Code>> for Weigh {
    fn weight(&self, _: &Key, code: &Arc<Code>) -> u64 {
        let image = match &**code {
            Code::Module(module) => module.module().image_range(),
            Code::Command(command) => command.instance_pre().component().image_range(),
            Code::Function(function) => function.component.component().image_range(),
        };
        PIECE_BYTES + (image.end as usize - image.start as usize) as u64
    }
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
    /// write there. There are so many `executors` at most, each of which keeps an instance.
    ///
    /// # Errors
    /// One sentence: the folder cannot be made, or there can be no engine on this machine.
    pub fn new(
        settings: &WasmSettings,
        limits: &LimitSettings,
        executors: usize,
        cache: &Path,
        compiler: Option<Compiler>,
    ) -> Result<Self, String> {
        let failed = |error: wasmtime::Error| format!("WebAssembly cannot be had: {}", first_line(&error));
        let plan = Plan::new(settings, limits, executors, cache)
            .map_err(|error| format!("the folder for WebAssembly cannot be made: {error}"))?;
        let engine = plan.engine().map_err(failed)?;
        let mut modules = wasmtime::Linker::new(&engine);
        p1::add_to_linker_async(&mut modules, Host::wasi).map_err(failed)?;
        let mut components = component::Linker::new(&engine);
        p2::add_to_linker_async(&mut components).map_err(failed)?;
        let ticker = Ticker::start(engine.weak())
            .map_err(|error| format!("the clock of WebAssembly cannot be started: {error}"))?;
        let compiled = Cache::with_weighter(COMPILED, settings.code_mb.saturating_mul(1 << 20), Weigh);
        let (hopeless, compiling) = (Cache::new(MAX_HOPELESS), Semaphore::new(MAX_COMPILING));
        let max_files = files::share(plan.executors);
        let shared = Shared { plan, engine, modules, components, compiled, hopeless, compiling, compiler };
        Ok(Self { shared: Arc::new(shared), ticker, max_runs: settings.max_runs, max_files })
    }

    /// The code in that file, compiled; by one of those that ask at the same time. Whoever asked may go: the work is
    /// done for the next, within its own bounds.
    ///
    /// # Errors
    /// The outcome: it is no code, none that can be run, or too much to compile.
    pub async fn code(&self, file: &Path, pin: &str) -> Result<Arc<Code>, Outcome> {
        let key: Key = (pin.to_owned(), file.to_owned());
        if let Some(code) = self.shared.compiled.get(&key) {
            return Ok(code);
        }
        self.shared.check_hope(&key).map_err(Failure::outcome)?;
        let shared = self.shared.clone();
        let once = async move {
            let compile = shared.clone().compile_aside(&key);
            shared.compiled.get_or_insert_async(&key, compile).await
        };
        let code = tokio::spawn(once).await.unwrap_or_else(|error| Err(Failure::Told(error.to_string())));
        code.map_err(Failure::outcome)
    }

    /// How many files one guest may have open: all of them together leave most of what this process may have to others.
    pub fn max_files(&self) -> u64 {
        self.max_files
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

impl Plan {
    fn new(
        settings: &WasmSettings,
        limits: &LimitSettings,
        executors: usize,
        cache: &Path,
    ) -> std::io::Result<Self> {
        std::fs::create_dir_all(cache)?;
        Ok(Self {
            cache: cache.canonicalize()?,
            instances: settings.max_instances.max(1),
            executors: u32::try_from(executors).unwrap_or(u32::MAX).max(1),
            memory_bytes: limits.max_memory_mb.saturating_mul(1 << 20).min(MAX_MEMORY),
        })
    }

    /// As an argument of a process.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("paths that are text, and numbers")
    }

    /// What such an argument says.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The engine.
    ///
    /// # Errors
    /// There can be none on this machine, or no cache in that folder.
    pub fn engine(&self) -> wasmtime::Result<wasmtime::Engine> {
        let mut folder = CacheConfig::new();
        folder.with_directory(&self.cache);
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            // Nothing here runs more than one call of an instance at a time, and each call would pay for it.
            .concurrency_support(false)
            // Nobody is shown one.
            .wasm_backtrace_max_frames(None)
            .cache(Some(wasmtime::Cache::new(folder)?))
            .allocation_strategy(self.pool());
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
    fn pool(&self) -> PoolingAllocationConfig {
        // Each guest has one stack. A component is made of several modules, and they may have memories and tables. There is
        // always room for as many guests as executors, each with as many as it may have: an executor has one at a time.
        let (instances, executors) = (self.instances, self.executors);
        let of = |each: u32, most: usize| {
            instances
                .saturating_mul(each)
                .max(executors.saturating_mul(u32::try_from(most).unwrap_or(u32::MAX)))
        };
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(instances.max(executors))
            .total_stacks(instances.max(executors))
            .total_memories(of(1, Memory::MAX_MEMORIES))
            .total_core_instances(of(16, Memory::MAX_INSTANCES))
            .total_tables(of(4, Memory::MAX_TABLES))
            .table_elements(TABLE_ELEMENTS)
            .max_tables_per_module(4)
            .max_memories_per_module(4)
            .max_memory_size(usize::try_from(self.memory_bytes).unwrap_or(usize::MAX));
        pool
    }
}

/// What the source in this file is, compiled, or found in the cache.
///
/// # Errors
/// One sentence: it cannot be read, or is none.
pub fn compiled(engine: &wasmtime::Engine, file: &Path) -> Result<Piece, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("the source cannot be read: {error}"))?;
    let told = |error: wasmtime::Error| format!("the source is no WebAssembly: {}", first_line(&error));
    let mut builder = CodeBuilder::new(engine);
    builder.wasm_binary_or_text(&bytes, None).map_err(told)?;
    if matches!(builder.hint(), Some(CodeHint::Component)) {
        builder.compile_component().map(Piece::Component).map_err(told)
    } else {
        builder.compile_module().map(Piece::Module).map_err(told)
    }
}

/// What is compiled.
pub enum Piece {
    /// A module.
    Module(Module),
    /// A component.
    Component(Component),
}

impl Shared {
    /// Refuses what was tried in vain a moment ago.
    fn check_hope(&self, key: &Key) -> Result<(), Failure> {
        match self.hopeless.get(key) {
            Some((when, problem)) if when.elapsed() < HOPELESS => Err(Failure::TooMuch(problem)),
            _ => Ok(()),
        }
    }

    async fn compile_aside(self: Arc<Self>, key: &Key) -> Result<Arc<Code>, Failure> {
        let (shared, file) = (self.clone(), key.1.clone());
        let _permit = self.compiling.acquire().await.expect("it is never closed");
        // Somebody who asked before may have found out meanwhile.
        self.check_hope(key)?;
        if let Some(compiler) = &self.compiler {
            let compiled = compiler.compile(&self.plan, &file).await;
            if let Err(Failure::TooMuch(problem)) = &compiled {
                tracing::warn!(pin = key.0, problem, "a WebAssembly source cannot be compiled");
                self.hopeless.insert(key.clone(), (Instant::now(), problem.clone()));
            }
            compiled?;
        }
        // Now it is found in the cache, or else it is known to be compiled within bounds.
        let link = move || shared.link(&file).map(Arc::new);
        let linked = tokio::task::spawn_blocking(link).await.unwrap_or_else(|error| Err(error.to_string()));
        linked.map_err(Failure::Told)
    }

    fn link(&self, file: &Path) -> Result<Code, String> {
        match compiled(&self.engine, file)? {
            Piece::Module(module) => self.module(&module),
            Piece::Component(component) => self.component(&component),
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
