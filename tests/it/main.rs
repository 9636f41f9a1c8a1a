//! Through real sockets and real processes: each test starts the built service in a folder of its own.
//!
//! `service`, `process`, `socket`, `server`, `podman`, `npm`, `program` and `census` are what the tests stand on; every other
//! module holds the tests of one promise.
#![allow(clippy::unwrap_used)]

mod census;
mod network;
mod npm;
mod podman;
mod process;
mod program;
mod server;
mod service;
mod socket;

mod api;
mod artifacts;
mod artifacts_refused;
mod audit;
mod bad;
mod bad_cases;
mod bad_tables;
mod bulk_client;
mod canary;
mod cancels;
mod client;
mod compiled;
mod containers;
mod containment;
mod control;
mod definitions;
mod durable;
mod egress;
mod faults;
mod filters;
mod hostile;
mod injection;
mod keys;
mod ledger;
mod lifecycle;
mod limits;
mod load;
mod many;
mod mcp;
mod metrics;
mod million;
mod openapi;
mod outputs;
mod power;
mod python;
mod python_packages;
mod python_warm;
mod queue;
mod rates;
mod register;
mod rest;
mod retries;
mod sandbox;
mod schemas;
mod secrets;
mod seed;
mod session;
mod slow;
mod soak;
mod stream;
mod swarm;
mod tls;
mod wasm;
