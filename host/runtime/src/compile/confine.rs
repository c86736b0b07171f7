//! What a compiler process gives up before it reads its first byte: time, memory, files, the network, other processes. The limits are a must; Landlock
//! and seccomp are a second wall, taken as far as the kernel has them.

use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus, Ruleset, RulesetAttr as _,
    RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, set_parent_process_death_signal, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde::{Deserialize, Serialize};
use skep_rules::limits::{COMPILE_CPU, MAX_CODE_BYTES, MAX_COMPILE_FILES, MAX_COMPILE_MEMORY};

/// What the kernel gave for the confinement of a compiler, beside its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Version of Landlock in force: no file can be opened, made or removed, and from version 4 no connection made. `None` without Landlock.
    pub landlock: Option<i32>,
    /// Only the system calls that compiling needs are answered.
    pub seccomp: bool,
}

/// Everything that goes without the engine: limits, and no files. Of the calling thread, which must be the only one.
///
/// # Errors
/// When a limit cannot be set. What of the rest the kernel lacks is told in the result of [`calls`].
pub(super) fn limits() -> io::Result<Option<i32>> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let cpu = COMPILE_CPU.0 / 1_000;
    // At the first a signal that says why; a second later the kernel does not ask again.
    limit(Resource::Cpu, cpu, cpu + 1)?;
    limit(Resource::As, MAX_COMPILE_MEMORY, MAX_COMPILE_MEMORY)?;
    limit(Resource::Fsize, MAX_CODE_BYTES, MAX_CODE_BYTES)?;
    limit(Resource::Nofile, MAX_COMPILE_FILES, MAX_COMPILE_FILES)?;
    limit(Resource::Core, 0, 0)?;
    Ok(files())
}

/// A limit, or what is left of it where somebody has set a lower one.
fn limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let before = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let wanted = Rlimit {
        current: Some(soft.min(before)),
        maximum: Some(hard.min(before)),
    };
    Ok(setrlimit(resource, wanted)?)
}

/// No path can be opened from here on, no connection made, no process outside signalled; sets `no_new_privs` in any case.
fn files() -> Option<i32> {
    const NEWEST: ABI = ABI::V6;
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .ok()
        .filter(|status| status.ruleset != RulesetStatus::NotEnforced)?;
    match restricted.landlock {
        LandlockStatus::Available { effective_abi, .. } => Some(effective_abi as i32),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => None,
    }
}

/// Only what compiling needs is answered from here on, everything else with "not permitted". False where the kernel has no such filter.
pub(super) fn calls() -> bool {
    let Ok(filter) = filter() else { return false };
    seccompiler::apply_filter(&filter).is_ok()
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    // Reading and writing what is open, memory, locks, randomness for hash tables, the way out.
    let free = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_lseek,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_sched_yield,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let dword = || SeccompCmpArgLen::Dword;
    // Memory, but none that can be executed: what is compiled here runs elsewhere.
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    let inert = SeccompCondition::new(2, dword(), SeccompCmpOp::MaskedEq(executable), 0)?;
    // Signals to itself alone, as `abort` sends one.
    let own = u64::from(getpid().as_raw_nonzero().get().unsigned_abs());
    let own = SeccompCondition::new(0, dword(), SeccompCmpOp::Eq, own)?;
    let tied = [
        (libc::SYS_mmap, inert.clone()),
        (libc::SYS_mprotect, inert),
        (libc::SYS_tgkill, own),
    ];
    let tied = tied
        .into_iter()
        .map(|(call, condition)| Ok((call, vec![SeccompRule::new(vec![condition])?])))
        .collect::<Result<Vec<_>, seccompiler::BackendError>>()?;
    let rules = free.into_iter().map(|call| (call, Vec::new())).chain(tied).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}
