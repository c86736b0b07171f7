//! The engines and what they may hold: the one hardened configuration of wasmtime, and pools sized to what the kernel gives this process. Decides
//! no limit of a single attempt; those are set on its store.

use std::{
    hash::{Hash, Hasher},
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
};

use skep_rules::limits::{MAX_LARGE_ATTEMPTS, MAX_WARMING, Tier};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};

use crate::Error;

/// Memory mappings of one live attempt: two for its stack, four for its instance.
const MAPPINGS_PER_SLOT: u64 = 6;
/// Mappings left to the rest of the process: threads, files, compiled code.
const MAPPINGS_RESERVED: u64 = 2_000;
/// What a kernel allows where it cannot be asked.
const DEFAULT_MAPPINGS: u64 = 65_530;
/// Address space of one memory: 4 GiB lets compiled code leave out bounds checks. It costs address space only.
const RESERVATION: u64 = 4 << 30;
/// Memory of a slot that is cleared instead of given back when the slot is recycled.
const KEEP_RESIDENT: usize = 64 << 10;
/// The same of its tables and its stack: what a usual attempt touches of them.
const KEEP_TABLE: usize = 8 << 10;
const KEEP_STACK: usize = 32 << 10;
/// Slots whose memory is given back in one go.
const DECOMMIT_BATCH: usize = 64;
/// The stack of the guest, and of guest and host together: host functions run on the same stack and overflowing it there ends the process.
const GUEST_STACK: usize = 512 << 10;
const FIBER_STACK: usize = 2 << 20;
/// Frames of a trap's backtrace.
const BACKTRACE: NonZeroUsize = NonZeroUsize::new(16).expect("sixteen is not zero");

/// What compiled code depends on beside what is the same for every engine of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Address space of one memory in bytes.
    pub(crate) reservation: u64,
}

impl Default for Profile {
    fn default() -> Self {
        Profile {
            reservation: RESERVATION,
        }
    }
}

impl Profile {
    /// An engine that compiles and runs nothing: it reserves no pool, and uses one thread.
    ///
    /// # Errors
    /// When the machine is none that wasmtime compiles for.
    pub(crate) fn compiler(self) -> Result<Engine, Error> {
        let mut config = config(self);
        config
            .strategy(Strategy::Cranelift)
            .cranelift_opt_level(OptLevel::Speed)
            .cranelift_nan_canonicalization(true)
            .parallel_compilation(false)
            .allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Engine::new(&config).map_err(|error| unusable(&error))
    }

    /// The fingerprint of the code that [`Profile::compiler`] makes. Engines without a compiler have another, so it is taken from one with.
    ///
    /// # Errors
    /// As [`Profile::compiler`].
    pub(crate) fn print(self) -> Result<[u8; 32], Error> {
        Ok(fingerprint(&self.compiler()?))
    }
}

/// An engine that runs code and cannot compile any, and what the code must be.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) engine: Engine,
    pub(crate) profile: Profile,
    pub(crate) print: [u8; 32],
}

impl Pool {
    /// The same without a pool and so without its ceilings: for a look at code whose agents may be of any tier.
    ///
    /// # Errors
    /// When no engine can be made.
    pub(crate) fn unbounded(&self) -> Result<Self, Error> {
        let mut config = config(self.profile);
        config
            .enable_compiler(false)
            .allocation_strategy(InstanceAllocationStrategy::OnDemand);
        let engine = Engine::new(&config).map_err(|error| unusable(&error))?;
        Ok(Pool { engine, ..self.clone() })
    }

    fn new(tier: Tier, slots: u32, profile: Profile) -> Result<Self, Error> {
        let mut config = config(profile);
        config
            .enable_compiler(false)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(tier, slots + MAX_WARMING)));
        Ok(Pool {
            engine: Engine::new(&config).map_err(|error| unusable(&error))?,
            profile,
            print: profile.print()?,
        })
    }
}

/// The engines of one process: one for `small` and `medium`, one for `large`, made when first needed.
#[derive(Debug)]
pub(crate) struct Engines {
    small: Pool,
    /// Locked while the engine is made, which happens once.
    large: Mutex<Option<Pool>>,
    slots: u32,
}

impl Engines {
    /// Makes the first engine, for at most `slots` live attempts; fewer where the machine does not hold so many.
    ///
    /// # Errors
    /// When no engine can be made at all.
    pub(crate) fn new(slots: u32) -> Result<Self, Error> {
        let slots = fitting(slots);
        let small = Tier::Medium;
        let small = match Pool::new(small, slots, Profile::default()) {
            Ok(pool) => pool,
            Err(error) => {
                tracing::warn!(%error, "address space is limited: memories get bounds checks instead of 4 GiB each");
                let reservation = small.limits().memory.0;
                Pool::new(small, slots, Profile { reservation })?
            }
        };
        Ok(Engines {
            small,
            large: Mutex::new(None),
            slots,
        })
    }

    /// Attempts that can be live at once.
    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    /// The engine for attempts of a tier.
    ///
    /// # Errors
    /// When the engine for `large` cannot be made.
    pub(crate) fn of(&self, tier: Tier) -> Result<Pool, Error> {
        if tier < Tier::Large {
            return Ok(self.small.clone());
        }
        let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = &*large {
            return Ok(pool.clone());
        }
        // Where the small engine had to do with less address space, memories of this one are as large as they can grow, no larger.
        let reservation = self.small.profile.reservation.max(tier.limits().memory.0);
        let pool = Pool::new(tier, MAX_LARGE_ATTEMPTS.min(self.slots), Profile { reservation })?;
        *large = Some(pool.clone());
        Ok(pool)
    }
}

fn unusable(error: &wasmtime::Error) -> Error {
    Error::Engine {
        message: format!("{error:#}"),
    }
}

/// How many of the wished slots the kernel's limit on mappings holds, beside the slots for `large`.
fn fitting(wished: u32) -> u32 {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(DEFAULT_MAPPINGS);
    let fit = slots_within(limit);
    if wished > fit {
        tracing::warn!(
            wished,
            fit,
            max_map_count = limit,
            "fewer slots than wished: raise the sysctl vm.max_map_count"
        );
    }
    wished.clamp(1, fit)
}

/// Memory mappings that a host with so many slots may come to need: those of the slots, of the slots for `large` and for warming, and of the rest of
/// the process. The kernel's bound is `vm.max_map_count`; where it is lower, a runner has fewer slots.
#[must_use]
pub fn mappings_needed(slots: u32) -> u64 {
    let all = u64::from(slots) + u64::from(MAX_LARGE_ATTEMPTS + 2 * MAX_WARMING);
    MAPPINGS_RESERVED + MAPPINGS_PER_SLOT * all
}

fn slots_within(mappings: u64) -> u32 {
    let fit = mappings.saturating_sub(mappings_needed(0)) / MAPPINGS_PER_SLOT;
    u32::try_from(fit).unwrap_or(u32::MAX).clamp(1, 1_000_000)
}

/// A digest of everything that compiled code depends on. Wasmtime's own check leaves out NaN canonicalisation and the level of optimisation, so
/// code is filed under this and never loaded under another.
pub(crate) fn fingerprint(compiler: &Engine) -> [u8; 32] {
    struct Feed(blake3::Hasher);
    impl Hasher for Feed {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut feed = Feed(blake3::Hasher::new());
    feed.write(b"skep engine 1: cranelift, speed, fuel, canonical NaN, no epochs, no GC, no threads, no concurrency; ");
    feed.write(&crate::plugin::features().bits().to_le_bytes());
    // Holds wasmtime's version, the target, its flags and the widths of memory.
    compiler.precompile_compatibility_hash().hash(&mut feed);
    *feed.0.finalize().as_bytes()
}

/// The hardened configuration, as far as those who compile and those who run share it. Every switch is set, also where it is the default today, so
/// that an update cannot widen what guests reach.
fn config(profile: Profile) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .operator_cost(wasmtime::OperatorCost {
            variable: wasmtime::VariableOperatorCost {
                memory_grow_per_page: 255,
                ..wasmtime::VariableOperatorCost::default()
            },
            ..wasmtime::OperatorCost::default()
        })
        .epoch_interruption(false)
        .concurrency_support(false)
        .wasm_component_model(true)
        .wasm_component_model_implements(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        .wasm_stack_switching(false)
        .wasm_relaxed_simd(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .gc_support(false)
        .signals_based_traps(true)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(FIBER_STACK)
        .async_stack_zeroing(true)
        .wasm_backtrace_max_frames(Some(BACKTRACE))
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .memory_reservation(profile.reservation)
        // Copying data segments into pages that stay resident beats mapping them anew: mappings are a lock that two threads fight over.
        .memory_init_cow(false);
    config
}

fn pool(tier: Tier, slots: u32) -> PoolingAllocationConfig {
    let limits = tier.limits();
    let large = tier == Tier::Large;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        // As many as every attempt may have, so that none can use up another's; memories alone are reserved address space and must do with less.
        .total_core_instances(slots.saturating_mul(limits.instances))
        .total_memories(slots.saturating_mul(if large { 4 } else { 2 }))
        .total_tables(slots.saturating_mul(limits.tables))
        .total_stacks(slots)
        .max_core_instances_per_component(limits.instances)
        .max_memories_per_component(limits.memories)
        .max_memories_per_module(limits.memories)
        .max_tables_per_module(limits.tables)
        .max_tables_per_component(limits.tables.max(16))
        .max_memory_size(size(limits.memory.0))
        .table_elements(size(limits.table_elements))
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_TABLE)
        .async_stack_keep_resident(KEEP_STACK)
        .decommit_batch_size(DECOMMIT_BATCH)
        .pagemap_scan(Enabled::No);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_fit_under_the_usual_limit_of_mappings() {
        assert!(
            (10_000..10_400).contains(&slots_within(DEFAULT_MAPPINGS)),
            "{}",
            slots_within(DEFAULT_MAPPINGS)
        );
        assert_eq!(slots_within(0), 1);
        assert_eq!(slots_within(mappings_needed(7)), 7);
        assert_eq!(slots_within(mappings_needed(7) - 1), 6);
    }

    #[test]
    fn compiled_code_is_the_same_for_all_tiers_and_the_fingerprint_says_so() {
        let engines = Engines::new(4).unwrap();
        let (small, large) = (engines.of(Tier::Small).unwrap(), engines.of(Tier::Large).unwrap());
        assert_eq!(small.print, large.print);
        let narrow = Profile { reservation: 64 << 20 };
        assert_ne!(small.print, narrow.print().unwrap());
        let other = Engine::new(Config::new().cranelift_nan_canonicalization(true)).unwrap();
        assert_ne!(small.print, fingerprint(&other));
    }

    #[test]
    fn the_engines_that_run_guests_cannot_compile() {
        let engines = Engines::new(4).unwrap();
        let component = wat::parse_str("(component)").unwrap();
        let profile = engines.small.profile;
        assert!(profile.compiler().unwrap().precompile_component(&component).is_ok());
        for tier in [Tier::Medium, Tier::Large] {
            let engine = engines.of(tier).unwrap().engine;
            assert!(engine.precompile_component(&component).is_err());
            assert!(wasmtime::component::Component::from_binary(&engine, &component).is_err());
        }
    }
}
