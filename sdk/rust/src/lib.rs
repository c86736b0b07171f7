//! Write an agent for Skep in Rust.
//!
//! An agent is a WebAssembly component. What it exports says what it can do: implement [`Executor`], [`Planner`] or [`Checker`] and name
//! the type in [`executor!`], [`planner!`] or [`checker!`]; one component may do several. What it imports says what it may reach: the
//! modules [`log`], [`heartbeat`] and [`context`] are free, [`artifacts`] needs a grant, and a module that is never called leaves no
//! trace in the component.
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
pub mod payload;
mod planner;
mod task;

pub use bindings::checker_agent::exports::skep::agent::checker::{Guest as Checker, Verdict};
pub use bindings::executor_agent::exports::skep::agent::executor::{Guest as Executor, Outcome};
pub use bindings::imports::skep::agent::types::{
    Artifact, Dependency, Ended, Failure, Node, Payload, Plan, Retry, Task,
};
pub use bindings::planner_agent::exports::skep::agent::planner::Guest as Planner;
pub use heartbeat::Directive;
