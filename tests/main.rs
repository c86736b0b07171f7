//! The whole-host tests: the real binary, real components, real HTTP. One module per behaviour.

#![expect(
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that tests share"
)]

mod harness;

/// What people are asked, and what they say.
mod approvals;
/// Every limit ends an attempt with its reason code, and nothing else.
mod attempts;
/// The way of a new author: new, build, inspect, run, install.
mod author;
/// Backups and their restoring.
mod backup;
/// What is refused before anything runs: files, manifests, grants, plans, requests.
mod bad_input;
/// Components that are dear to compile, and who must not notice.
mod bombs;
/// What the imports of `skep:agent` give, to whom.
mod capabilities;
/// Components that no compiler makes.
mod corpus;
/// Crews of all sizes, their agents, drain.
mod crews;
/// The demo, on trees that are made to be difficult.
mod demo;
/// A disk that takes no more.
mod disk;
/// Data directories that no host can use, explained.
mod doctor;
/// Programs over all steps, killed at each, beside undisturbed twins.
mod equivalence;
/// The examples, as their READMEs have them.
mod examples;
/// The readers of what strangers write, on files that nobody wrote.
mod fuzz;
/// An install, killed at each of its writes.
mod install_crash;
/// `kill -9` at random moments under load, and a ledger of what was promised.
mod kills;
/// What people ask of tasks, and what becomes of those whose attempts or time are used up.
mod lifecycle;
/// The log of a host: live, filtered, and under a flood.
mod logs;
/// Messages: who receives them, once and in order.
mod messages;
/// An objective from notes to its report: planned, put in order, worked on, checked and approved, across `kill -9`.
mod objectives;
/// The lines of the README, typed.
mod readme;
/// What survives `kill -9`.
mod recovery;
/// Records of tasks: shown, exported, run again; the state of crews.
mod replay;
/// Files, sockets and output as agents meet them.
mod sandbox;
/// Tasks that come by schedule, across `kill -9`.
mod schedules;
/// What publishers sign, offline, and how it is verified.
mod signing;
/// What a submission promises: keys, batches, durability, back-pressure, a stop in order.
mod submissions;
/// Plans, dependencies, checks, retries.
mod trees;
/// Signed uploads, trust, revocation: a walk of publisher and operator, each refusal, dev mode.
mod trust;
/// Programs outside that are told of what happens.
mod webhooks;
