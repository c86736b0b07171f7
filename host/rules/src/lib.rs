//! What may happen next in Skep, decided purely: records, state machines, grants, limits and the sans-I/O shard core.
//!
//! Nothing here names a clock, a file, a socket, a thread or a source of randomness: time, ids and seeds are arguments, drawn by the driver.
//! The same crate therefore runs in the host, in the simulation and, compiled for `wasm32-wasip2`, anywhere else.

pub mod agent;
pub mod approval;
pub mod audit;
pub mod capability;
pub mod command;
pub mod crew;
pub mod crew_record;
pub mod decide;
pub mod effect;
pub mod event;
pub mod facts;
pub mod grant;
pub mod http;
pub mod id;
mod index;
pub mod key;
pub mod lease;
pub mod lifecycle;
pub mod limits;
pub mod manifest;
pub mod message;
pub mod metadata;
pub mod observed;
mod once;
pub mod plan;
pub mod plugin;
pub mod priority;
pub mod quantity;
pub mod reason;
mod recent;
pub mod rejection;
pub mod release;
pub mod retry;
pub mod schedule;
pub mod schema;
pub mod seam;
pub mod shard;
pub mod state;
pub mod step;
pub mod task;
pub mod traffic;
pub mod trust;
pub mod widening;
