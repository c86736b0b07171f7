//! A forged disk under the engine: power is cut at every operation of a scripted run, every operation fails once, and bits flip
//! in every page.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what it expects by failing"
)]

/// The disk.
mod disk;
/// Operations that fail.
mod faults;
/// Bits that flip.
mod flips;
/// Power cuts.
mod power;
/// What is done, and what must be left of it.
mod script;
