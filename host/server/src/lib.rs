//! The serving side of Skep: a host that can be started and stopped in-process, its driver, and its HTTP API.
//!
//! The command line (`main.rs`) is a client of [`http::api`] and starts a [`host::Host`] for `skep up` and `skep demo`; tests and benches do the
//! same. wasmtime types never reach this crate, nor do those of the storage engine.

mod admission;
pub mod backup;
pub mod clock;
pub mod currency;
mod data_dir;
mod driver;
pub mod examine;
pub mod export;
mod feed;
pub mod host;
pub mod http;
mod install;
mod logs;
mod perform;
mod read;
mod record;
mod shutdown;
pub mod telemetry;
mod uploads;
pub mod webhook;
pub mod words;
