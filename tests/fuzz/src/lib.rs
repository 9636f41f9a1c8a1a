//! The engine's pure modules, taken in by path, so that fuzzing builds and instruments them without the store and the
//! runtimes. What they import is found at the root of this crate, as it is in the engine.
#![allow(dead_code, missing_docs)]

pub use engine::{
    access, artifacts, audit, compiled, definition, error, execution, json, log, query, schema,
};
pub use engine::{secrets, session, settings, spec, template, version};

pub mod judge;

#[path = "../../../actors/src"]
mod engine {
    pub mod compiled;
    pub mod definition;
    pub mod error;
    pub mod execution;
    pub mod json;
    pub mod query;
    pub mod schema;
    pub mod spec;
    pub mod template;
    pub mod version;

    /// Stands in for the keys of the engine, whose file reads the store: who asks is only named here.
    pub mod access {
        use std::fmt;
        use std::str::FromStr;

        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct KeyId(u64);

        impl fmt::Display for KeyId {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:016x}", self.0)
            }
        }

        impl FromStr for KeyId {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u64::from_str_radix(text, 16).map(Self)
            }
        }
    }

    /// Stands in for the audit log, which writes files: nothing is recorded here.
    pub mod audit {
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct Origin;
    }

    /// Stands in for the secrets of the configuration: nobody is given one here.
    pub mod secrets {
        #[derive(Clone, Debug, Default)]
        pub struct Granted;
    }

    /// Stands in for the configuration, of which an outcome names one value.
    pub mod settings {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Level {
            Off,
        }

        impl Level {
            pub fn name(self) -> &'static str {
                "off"
            }
        }
    }

    /// Stands in for the rings of log lines, which wait on a runtime: nothing is logged here.
    pub mod log {
        #[derive(Debug)]
        pub struct LogRing;

        #[derive(Debug, Default)]
        pub struct Kept;
    }

    /// Stands in for the session's actor; reading a request is the engine's.
    pub mod session {
        use crate::definition::Kind;
        use crate::error::Error;

        pub mod request;

        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Door {
            Once(Kind),
            Many,
        }

        fn failed() -> Error {
            unreachable!("a request that was read has its input")
        }
    }

    /// Stands in for the store of artifacts, which fetches; reading an archive and listing a tree is the engine's.
    pub mod artifacts {
        use std::io;

        use sha2::{Digest, Sha256};

        pub mod manifest;
        pub mod tree;
        pub mod unpack;

        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct Pin(String);

        impl Pin {
            pub const LENGTH: usize = 64;

            pub fn as_str(&self) -> &str {
                &self.0
            }

            fn of(hasher: Sha256) -> Self {
                Self(format!("{:x}", hasher.finalize()))
            }
        }

        /// The reasons that reading an archive gives.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Problem {
            TooLargeUnpacked(u64),
            TooManyEntries,
            Unsafe { entry: String, why: &'static str },
            Unreadable(String),
            NotKept(String),
        }

        impl Problem {
            fn unreadable(error: impl ToString) -> Self {
                Self::Unreadable(error.to_string().chars().take(300).collect())
            }

            fn not_kept(error: io::Error) -> Self {
                Self::NotKept(error.to_string())
            }
        }
    }
}
