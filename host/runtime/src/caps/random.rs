//! `wasi:random`: gives every agent random numbers that follow from its attempt's seed, so that a replay draws the same ones. Needs no grant. One
//! call hands out at most [`MAX_RANDOM_BYTES`].

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use skep_rules::{limits::MAX_RANDOM_BYTES, reason::Reason};
use wasmtime::component::Linker;
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use super::base::{Base, Get, HasBase};
use crate::meter::Stop;

/// The three sources. Each is a stream of its own: what a guest reveals of the insecure ones says nothing about the secure one.
pub(super) struct Random {
    secure: ChaCha20Rng,
    insecure: ChaCha20Rng,
    seed: (u64, u64),
}

impl Random {
    /// All three from the seed of the attempt. Guests get no more entropy than its 64 bits: keys that must outlive the task belong to the host.
    pub(super) fn new(seed: u64) -> Self {
        let source = |purpose: &str| {
            let key = blake3::derive_key(purpose, &seed.to_le_bytes());
            ChaCha20Rng::from_seed(key)
        };
        let mut third = source("skep 2026 wasi:random/insecure-seed");
        Random {
            secure: source("skep 2026 wasi:random/random"),
            insecure: source("skep 2026 wasi:random/insecure"),
            seed: (third.next_u64(), third.next_u64()),
        }
    }
}

/// Links `wasi:random`.
///
/// # Errors
/// When the linker holds one of the interfaces already.
pub(super) fn link<T: Send + 'static>(linker: &mut Linker<T>, get: Get<T>) -> wasmtime::Result<()> {
    random::add_to_linker::<T, HasBase>(linker, get)?;
    insecure::add_to_linker::<T, HasBase>(linker, get)?;
    insecure_seed::add_to_linker::<T, HasBase>(linker, get)
}

/// `length` random bytes, or an end: the interface has no way to refuse.
fn bytes(source: &mut ChaCha20Rng, length: u64) -> Result<Vec<u8>, Stop> {
    let refused = || {
        let message = format!("asked for {length} random bytes at once; {MAX_RANDOM_BYTES} are the most");
        Stop::new(Reason::HostcallLimit, message)
    };
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_RANDOM_BYTES)
        .ok_or_else(refused)?;
    let mut bytes = vec![0; length];
    source.fill_bytes(&mut bytes);
    Ok(bytes)
}

impl random::Host for Base {
    fn get_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.meter.charge(length)?;
        Ok(bytes(&mut self.random.secure, length)?)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.meter.charge(0)?;
        Ok(self.random.secure.next_u64())
    }
}

impl insecure::Host for Base {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.meter.charge(length)?;
        Ok(bytes(&mut self.random.insecure, length)?)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.meter.charge(0)?;
        Ok(self.random.insecure.next_u64())
    }
}

impl insecure_seed::Host for Base {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        self.meter.charge(0)?;
        Ok(self.random.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_the_sources_differ() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (
                bytes(&mut random.secure, 16),
                bytes(&mut random.insecure, 16),
                random.seed,
            )
        };
        assert_eq!(draw(7), draw(7));
        let (secure, insecure, _) = draw(7);
        assert_ne!(secure, insecure);
        assert_ne!(draw(7).0, draw(8).0);
        assert_ne!(draw(7).2, draw(8).2);
    }

    #[test]
    fn one_call_hands_out_a_bounded_number() {
        let source = &mut Random::new(1).secure;
        let most = u64::try_from(MAX_RANDOM_BYTES).unwrap();
        assert_eq!(bytes(source, most).unwrap().len(), MAX_RANDOM_BYTES);
        for length in [most + 1, u64::MAX] {
            assert_eq!(bytes(source, length).unwrap_err().reason, Reason::HostcallLimit);
        }
    }
}
