//! The engine's settings: the sections of the configuration that it reads. `config/default.toml` tells
//! each key's meaning and default; what is read here has no default of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::access::Ids;
use crate::definition::Kind;
pub use crate::egress::Allowed;
use crate::execution::Runtime;

/// All that [`crate::system::System::start`] needs to know.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where definitions are kept.
    pub store: StoreSettings,
    /// How executions are recorded.
    pub journal: JournalSettings,
    /// The queue.
    pub dispatcher: DispatcherSettings,
    /// The workers of each runtime.
    pub pools: BTreeMap<Runtime, PoolSettings>,
    /// The bounds of one execution, where its definition sets none.
    pub limits: LimitSettings,
    /// How far programs are kept apart from this machine and from each other.
    pub sandbox: SandboxSettings,
    /// External registries, in the order in which they are asked.
    pub sources: Vec<SourceSettings>,
    /// What may be reached.
    pub egress: EgressSettings,
    /// Where programs may come from.
    pub artifacts: ArtifactSettings,
    /// The engine that runs containers.
    pub containers: ContainerSettings,
    /// The interpreters.
    pub python: PythonSettings,
    /// WebAssembly.
    pub wasm: WasmSettings,
    /// What executions are given by name.
    pub secrets: BTreeMap<String, SecretSettings>,
    /// Who may come in.
    pub auth: AuthSettings,
    /// Who did what.
    pub audit: AuditSettings,
}

/// `[audit]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSettings {
    /// Whether anything is recorded.
    pub enabled: bool,
    /// How many days an entry is kept; 0 is for ever.
    pub keep_days: u64,
}

/// One of `[secrets]`: where its value is, in one of three places, and who may have it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretSettings {
    /// A variable of the service's environment.
    #[serde(default)]
    pub env: Option<String>,
    /// A file, read for each execution.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// A program and its arguments; what it prints is the value.
    #[serde(default)]
    pub command: Vec<String>,
    /// The ids of the definitions that may have it, as patterns; none unless told.
    #[serde(default)]
    pub definitions: Vec<String>,
    /// Whether white space around the value is left out.
    #[serde(default = "SecretSettings::trims")]
    pub trim: bool,
    /// How long what a command printed is good, in milliseconds.
    #[serde(default = "SecretSettings::default_cache_ms")]
    pub cache_ms: u64,
}

/// `[auth]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    /// Whether a key is asked for.
    pub required: Required,
    /// Whose tokens are taken.
    pub issuers: Vec<IssuerSettings>,
}

/// Whether a key is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Required {
    /// Once there was one, or somebody's tokens are taken.
    Auto,
    /// Always.
    Always,
}

/// One of `[[auth.issuers]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// What their `aud` has to name.
    pub audience: String,
    /// The file with the keys that check them (JWKS).
    pub keys: PathBuf,
    /// The claim that has the scopes.
    #[serde(default = "scope_claim")]
    pub scope_claim: String,
}

/// As in RFC 8693.
fn scope_claim() -> String {
    "scope".to_owned()
}

/// `[store]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// `surrealkv://FOLDER` or `mem://`.
    pub url: String,
    /// How many MiB of definitions are kept ready in memory.
    pub cache_mb: u64,
    /// How many MiB the store's engine may take.
    pub memory_mb: u64,
    /// How long one query may look at definitions, in milliseconds.
    pub query_timeout_ms: u64,
    /// How many requests may wait for the registry.
    pub max_pending: usize,
}

/// `[journal]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalSettings {
    /// When an execution counts as accepted.
    pub durability: Durability,
    /// How many hours an execution that ended is kept.
    pub keep_hours: u64,
    /// How many executions that ended are kept; the oldest go first.
    pub keep_count: u64,
    /// How many MiB large outputs may take together; of the executions that have one the oldest go first.
    pub keep_output_mb: u64,
    /// How often it is looked for executions that need not be kept, in milliseconds.
    pub sweep_ms: u64,
}

/// What an accepted execution survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Nothing beyond this process.
    Memory,
    /// The end of the process and of the machine.
    Journal,
}

/// `[dispatcher]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DispatcherSettings {
    /// How many submissions may wait for the dispatcher's decision.
    pub max_pending: usize,
    /// How many MiB of inputs may wait in all queues together.
    pub max_queued_mb: usize,
    /// How many executions of one client may be open.
    pub max_per_client: usize,
    /// How long running executions may go on after a shutdown began, in milliseconds.
    pub grace_ms: u64,
}

/// `[pools.<runtime>]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    /// Executors kept even when idle.
    pub min: usize,
    /// Executors at most.
    pub max: usize,
    /// Executions that may wait for this runtime.
    pub queue: usize,
    /// After how many idle milliseconds an executor beyond `min` is let go.
    pub idle_ms: u64,
}

/// `[limits]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// How long an execution may run, in milliseconds, unless its definition says otherwise.
    pub timeout_ms: u64,
    /// The longest timeout that a definition may ask for, in milliseconds.
    pub max_timeout_ms: u64,
    /// How many bytes an execution may put out, unless its definition says otherwise.
    pub output_bytes: u64,
    /// The largest output that a definition may ask for, in bytes.
    pub max_output_bytes: u64,
    /// How many MiB of memory an execution may hold, unless its definition says otherwise.
    pub memory_mb: u64,
    /// The most memory that a definition may ask for, in MiB.
    pub max_memory_mb: u64,
    /// How many processes and threads an execution may have, unless its definition says otherwise.
    pub processes: u64,
    /// The most processes that a definition may ask for.
    pub max_processes: u64,
    /// How many files a process of an execution may have open, unless its definition says otherwise.
    pub files: u64,
    /// The most open files that a definition may ask for.
    pub max_files: u64,
    /// How many MiB an execution may write into its working folder.
    pub disk_mb: u64,
    /// How programs are kept together so that all of them can be ended.
    pub containment: Containment,
    /// How many bytes of one log line are kept.
    pub log_line_bytes: usize,
    /// How many log lines wait for a slow reader before the oldest is dropped.
    pub log_lines: usize,
}

/// One of `[[sources]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// How logs and errors call it.
    pub name: String,
    /// Where a tool is asked for; `{id}` stands for the id.
    #[serde(default)]
    pub tool_url: Option<String>,
    /// Where a function is asked for; `{id}` stands for the id.
    #[serde(default)]
    pub function_url: Option<String>,
    /// Where an OpenAPI 3 document is; each of its operations is a function.
    #[serde(default)]
    pub openapi: Option<String>,
    /// Where the operations of `openapi` are called, instead of at the server that the document names.
    #[serde(default)]
    pub base_url: Option<String>,
    /// The address of an MCP server (streamable HTTP); each of its tools is a tool.
    #[serde(default)]
    pub mcp_url: Option<String>,
    /// The program of an MCP server (stdio) and its arguments; each of its tools is a tool.
    #[serde(default)]
    pub mcp_command: Vec<String>,
    /// What stands before the names of operations and of MCP tools in their ids.
    #[serde(default)]
    pub prefix: String,
    /// How often what was registered from here is fetched again, in milliseconds; 0 is never.
    #[serde(default)]
    pub refresh_ms: u64,
    /// Headers sent along, such as `authorization`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Whether the source may resolve to a private or loopback address.
    #[serde(default)]
    pub allow_private: bool,
    /// How long an answer may take, in milliseconds.
    #[serde(default = "SourceSettings::default_timeout_ms")]
    pub timeout_ms: u64,
    /// How large an answer may be.
    #[serde(default = "SourceSettings::default_max_bytes")]
    pub max_bytes: u64,
}

/// `[egress]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressSettings {
    /// What may be reached though its address is private.
    pub allow: Vec<Allowed>,
}

/// `[artifacts]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactSettings {
    /// Folders from which `source_url` may take programs, besides the catalog's own.
    pub roots: Vec<PathBuf>,
    /// How many MiB of artifacts are kept; those that were not used for longest go first.
    pub cache_mb: u64,
    /// How large a source may be, in MiB, packed or unpacked.
    pub max_mb: u64,
    /// How long fetching a source may take, in milliseconds.
    pub fetch_timeout_ms: u64,
    /// Whether a source may be at a private or loopback address.
    pub allow_private: bool,
}

/// `[sandbox]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSettings {
    /// The level.
    pub level: Level,
    /// Whether a definition may have the machine's network at the level `isolated`.
    pub network: bool,
    /// What programs are shown of this machine, besides the system's programs and those on the `PATH`.
    pub readable: Vec<PathBuf>,
    /// How many MiB `/tmp` may hold, and `/dev/shm`.
    pub tmp_mb: u64,
}

/// How far programs are kept apart from this machine and from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The strongest that this machine gives.
    Auto,
    /// Each executor's programs in a jail of their own: namespaces, a filter of system calls, and the limits.
    Isolated,
    /// The limits, and all that a program started ends with it.
    Limits,
    /// Only the time, and the end of what is below the program.
    Off,
}

impl Level {
    /// The name that stands in the configuration and in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Isolated => "isolated",
            Self::Limits => "limits",
            Self::Off => "off",
        }
    }

    /// The level of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Auto, Self::Isolated, Self::Limits, Self::Off].into_iter().find(|level| level.name() == name)
    }
}

/// How programs are kept together so that all of them can be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Containment {
    /// The strongest that this machine gives, in the order below.
    Auto,
    /// A process namespace: the kernel ends all that is in it.
    PidNamespace,
    /// A control group that is killed whole.
    Cgroup,
    /// A user id that nothing else has.
    Uid,
    /// Process groups and a subreaper: enough for programs that fork slower than they are found.
    Subreaper,
}

/// `[containers]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSettings {
    /// `unix:///PATH`, `tcp://HOST:PORT`, or `auto`: looked for at the usual places.
    pub socket: String,
    /// How long pulling an image may take, in milliseconds.
    pub pull_timeout_ms: u64,
    /// How large the temporary file system of a container is, in MiB.
    pub tmpfs_mb: u64,
}

/// `[python]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PythonSettings {
    /// The interpreter: a name on PATH, or an absolute path.
    pub interpreter: String,
    /// After how many runs an interpreter is replaced.
    pub max_runs: u64,
    /// Arguments that `pip install` gets besides the requirements.
    pub pip_args: Vec<String>,
    /// How long making an environment may take, in milliseconds.
    pub install_timeout_ms: u64,
}

/// `[wasm]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WasmSettings {
    /// How many instances there may be at one time.
    pub max_instances: u32,
    /// After how many runs the instance of a component is replaced.
    pub max_runs: u64,
    /// How much compiled code is kept in memory, in MiB.
    pub code_mb: u64,
    /// How much memory compiling one source may take, in MiB.
    pub compile_memory_mb: u64,
    /// How long compiling one source may take, in milliseconds.
    pub compile_timeout_ms: u64,
}

impl Settings {
    /// Whether executions are recorded: what is in memory cannot outlive the process.
    pub fn is_journalled(&self) -> bool {
        self.journal.durability == Durability::Journal && self.store.url != "mem://"
    }
}

impl SecretSettings {
    fn trims() -> bool {
        true
    }

    fn default_cache_ms() -> u64 {
        60_000
    }

    /// Which definitions may have it; none where it is for nobody.
    ///
    /// # Errors
    /// What is wrong with it, to read on after its name.
    pub fn users(&self) -> Result<Option<Ids>, String> {
        let places = [self.env.is_some(), self.file.is_some(), !self.command.is_empty()];
        if places.into_iter().filter(|is_there| *is_there).count() != 1 {
            return Err("has not one of `env`, `file` and `command`".into());
        }
        if self.definitions.is_empty() {
            return Ok(None);
        }
        let users = Ids::matching(&self.definitions);
        users
            .map(Some)
            .map_err(|_| "has `definitions` that are no patterns: 1 to 16, of 1 to 128 bytes each".into())
    }
}

impl SourceSettings {
    fn default_timeout_ms() -> u64 {
        5_000
    }

    fn default_max_bytes() -> u64 {
        1 << 20
    }

    /// Whether the source may have something of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.url(kind).is_some() || self.lists(kind)
    }

    /// Whether the source lists what it has of this kind.
    pub fn lists(&self, kind: Kind) -> bool {
        match kind {
            Kind::Tool => self.mcp_url.is_some() || !self.mcp_command.is_empty(),
            Kind::Function => self.openapi.is_some(),
        }
    }

    /// How often what came from the source is fetched again.
    pub fn refresh(&self) -> Option<Duration> {
        (self.refresh_ms > 0).then(|| Duration::from_millis(self.refresh_ms))
    }

    /// The template for this kind, if the source has it.
    pub fn url(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Tool => self.tool_url.as_deref(),
            Kind::Function => self.function_url.as_deref(),
        }
    }
}

impl PoolSettings {
    /// How long an executor beyond `min` may be idle.
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }
}
