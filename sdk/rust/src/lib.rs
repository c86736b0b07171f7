//! Write an agent for Skep in Rust.
//!
//! An agent is a WebAssembly component. What it exports says what it can do: implement [`Executor`], [`Planner`], [`Sequencer`], [`Checker`] or
//! [`Mailbox`] and name the type in [`executor!`], [`planner!`], [`sequencer!`], [`checker!`] or [`mailbox!`]; one component may do several. What it imports says what it may reach: the
//! modules [`log`], [`heartbeat`] and [`context`] are free, [`artifacts`], [`state`], [`tasks`] and [`messages`] need a grant, and a module that is never
//! called leaves no trace in the component.
//!
//! ```
//! use skep_sdk::{Executor, Failure, Outcome, Task};
//!
//! struct Hello;
//!
//! impl Executor for Hello {
//!     fn execute(task: Task) -> Result<Outcome, Failure> {
//!         let name: String = task.input()?;
//!         Ok(Outcome::json(&format!("Hello, {name}!"))?)
//!     }
//! }
//!
//! skep_sdk::executor!(Hello);
//!
//! // A test runs it natively, without a host.
//! let outcome = Hello::execute(Task::new("greet", &"Ada").unwrap()).unwrap();
//! assert_eq!(outcome, Outcome::json(&"Hello, Ada!").unwrap());
//! ```
//!
//! Build it as a `cdylib` for `wasm32-wasip2`. Each attempt of a task runs in an instance of its own: nothing kept in memory outlives the
//! call. Natively the imports are played by [`double`], so that agents can be unit-tested with `cargo test`.
//!
//! # Steps
//!
//! What outlives an attempt are its *steps*: the calls of [`state`], [`tasks`], [`messages`] and [`artifacts`]. The host records the answer of each with the task.
//! When an attempt is **lost** (the host crashed or was stopped, or the attempt lost its lease or its slot), and whenever a task has waited, the
//! agent runs again from the start with the same input, is given the recorded answers of the steps that it took before, and goes on live behind the
//! last of them. Nothing is done twice, and the author writes plain code from top to bottom.
//!
//! In return the agent must **ask the same in the same order** each time. It does by itself, because all that it can learn is recorded or the same
//! again: its input, the answers of steps, the host's wish at a heartbeat, random numbers, and the clock, which stands still between steps and is
//! told as it was. What would break it:
//!
//! - a mount whose files change while the task runs: read them once, in one attempt, or keep what was read in `state` or as an artifact;
//! - the time that computing takes: a clock that stands still measures nothing, so nothing may depend on it;
//! - another component: a task that has taken a step stays with the file that it began with, also when a newer release is installed.
//!
//! An agent that does something else than the record says is not guessed at: its task is paused with the reason `diverged`, and says at which step.
//! `/workspace` begins empty and is filled again by the same writes; log lines are written again, and kept once.
//!
//! An attempt that **failed** is another matter: the agent returned a [`Failure`], trapped, or passed a limit. If its task is tried again, then from
//! the start with an empty record and [`Task::attempt`] one higher. What the steps of the failed attempt did stays done, and its children that have
//! not ended are cancelled. So make a step that may be repeated harmless, or look first: [`state::compare_and_set`] with revision 0 writes only once.
//! For an attempt that continues a lost one, `attempt` is the same as before.
//!
//! A checker has no record, and neither has a task that was submitted as ephemeral: there [`state`], [`tasks`] and [`messages`] refuse with `Denied`.
//!
//! A record holds up to 1,000,000 steps or 256 MiB. A task that goes on for ever begins a new one with [`tasks::continue_with`].

#[doc(hidden)]
pub mod bindings;

pub mod artifacts;
mod checker;
pub mod context;
#[cfg(not(target_family = "wasm"))]
pub mod double;
mod executor;
mod failure;
pub mod heartbeat;
pub mod log;
mod mailbox;
pub mod messages;
pub mod payload;
mod planner;
mod retry;
mod sequencer;
pub mod state;
mod task;
pub mod tasks;

pub use bindings::checker_agent::exports::skep::agent::checker::{Guest as Checker, Verdict};
pub use bindings::executor_agent::exports::skep::agent::executor::{Guest as Executor, Outcome};
pub use bindings::imports::skep::agent::types::{
    ApprovalPoint, Artifact, Dependency, Ended, Failure, Message, MessageKind, Node, Note, Payload, Plan, Priority,
    Retry, RetryPolicy, Sender, Slot, Task, Timeouts,
};
pub use bindings::mailbox_agent::exports::skep::agent::mailbox::Guest as Mailbox;
pub use bindings::planner_agent::exports::skep::agent::planner::Guest as Planner;
pub use bindings::sequencer_agent::exports::skep::agent::sequencer::Guest as Sequencer;
pub use heartbeat::Directive;
/// The crate that reads inputs and writes outputs, for an agent that wants no dependency of its own.
pub use serde_json;
