//! Through real sockets and real processes: each test starts the built service in a folder of its own.
//!
//! `service`, `process`, `socket`, `server`, `program` and `census` are what the tests stand on; every other
//! module holds the tests of one promise.
#![allow(clippy::unwrap_used)]

mod census;
mod process;
mod program;
mod server;
mod service;
mod socket;

mod api;
mod bad;
mod bad_cases;
mod bad_tables;
mod faults;
mod hostile;
mod lifecycle;
mod load;
mod queue;
mod rates;
mod register;
mod rest;
mod schemas;
mod seed;
