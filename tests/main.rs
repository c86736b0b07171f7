//! The whole-host tests: the real binary, real components, real HTTP. One module per behaviour.

mod harness;

/// Every limit ends an attempt with its reason code, and nothing else.
mod attempts;
/// What is refused before anything runs: files, manifests, grants, plans, requests.
mod bad_input;
/// What the imports of `skep:agent` give, to whom.
mod capabilities;
/// Crews of all sizes, their agents, drain.
mod crews;
/// Plans, dependencies, checks, retries.
mod trees;
/// What survives `kill -9`.
mod recovery;
/// The way of a new author: new, build, inspect, run, install.
mod author;
/// The demo, on trees that are made to be difficult.
mod demo;
/// The examples, as their READMEs have them.
mod examples;
