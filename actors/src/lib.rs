//! The engine of Org Executor: registry, queue, executors and sessions as a tree of supervised actors. It serves no
//! HTTP and no WebSocket; the edge holds one [`system::System`] and sends messages through it.
//!
//! ```text
//! Root            one_for_one; the sixth failure of Registry or Dispatcher in 10 s ends the process
//! ├── Registry    owns the store; cache; resolves an id to a compiled definition
//! │   └── Journal the durable record of executions, written in group commits
//! ├── Dispatcher  the queue: admission, order, what is running
//! ├── Audit       who did what, when and from where, as a chain of hashes
//! ├── Pools
//! │   └── Pool (one for each runtime)   grows under load, shrinks when idle, replaces an executor that died
//! │       └── Executor × n              one execution at a time
//! └── Sessions    never restarted: the client connects again
//!     └── Session × connections
//! ```
//!
//! An actor's file reads: what it owns and what happens when it dies, `Msg`, `Args`, the actor, its `State`.
//! The domain is pure and knows no actor: [`definition`], [`execution`], [`query`], [`error`]; who may
//! do what is in [`access`], who did what in [`audit`].

pub mod access;
mod admission;
mod artifacts;
pub mod audit;
pub mod compiled;
pub mod cryptography;
pub mod definition;
pub mod dispatcher;
mod effects;
mod egress;
pub mod error;
pub mod execution;
pub mod executor;
#[cfg(feature = "faults")]
mod faults;
mod group;
pub mod journal;
pub mod json;
pub mod launcher;
pub mod log;
mod mcp;
pub mod measures;
pub mod names;
pub mod openapi;
pub mod pool;
pub mod pools;
pub mod query;
pub mod registry;
mod root;
mod runtime;
mod schema;
mod secrets;
pub mod session;
pub mod sessions;
pub mod settings;
pub mod spec;
mod supervision;
pub mod system;
mod template;
pub mod version;

pub use runtime::compiler;
