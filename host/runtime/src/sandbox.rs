//! Makes agents ready: compiles, links what was granted and nothing else, and checks that the exports are what they must be. What is ready for one
//! agent is shared by all agents of the same component and the same capabilities.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use skep_rules::{
    capability::GrantWord,
    grant::{self, Effective, Mount},
    id::Digest,
    limits::{Limits, Tier},
    reason::Reason,
    seam::{Export, Identity, RunnerEvent},
};
use wasmtime::{
    Engine,
    component::{Component, InstancePre, Linker},
};

use crate::{
    Error, Host, Options, bindings, caps,
    compile::{Cache, Found},
    ctx::{Ctx, Grants},
    engine::{Engines, Pool},
    escape::escape,
    instance::Prepared,
    limiter::Total,
    plugin::Refused,
    workspace::Workspaces,
};

/// What links of one component are told apart by: the engine and the capabilities.
type Key = (Digest, bool, u64);

/// Everything that attempts are made of, without the threads that run them. A [`Runner`](crate::Runner) has one; a measurement may use it alone.
#[derive(Debug)]
pub struct Sandbox {
    engines: Engines,
    cache: Cache,
    /// What is linked and in use. Each entry is locked while it is made, so that a component is linked once however many agents wait for it; the map
    /// itself only for a look.
    linked: Mutex<HashMap<Key, Arc<Mutex<Weak<Linked>>>>>,
    total: Arc<Total>,
    workspaces: Arc<Workspaces>,
}

/// A component with its imports resolved and its exports found.
pub(crate) struct Linked {
    pub(crate) engine: Engine,
    pub(crate) pre: InstancePre<Ctx>,
    pub(crate) executor: Option<bindings::executor::GuestIndices>,
    pub(crate) planner: Option<bindings::planner::GuestIndices>,
    pub(crate) checker: Option<bindings::checker::GuestIndices>,
    pub(crate) mailbox: Option<bindings::mailbox::GuestIndices>,
    pub(crate) sequencer: Option<bindings::sequencer::GuestIndices>,
    needs: Needs,
}

impl std::fmt::Debug for Linked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linked")
            .field("exports", &self.exports())
            .finish_non_exhaustive()
    }
}

impl Linked {
    /// What can be called.
    pub(crate) fn exports(&self) -> Vec<Export> {
        let found = [
            (Export::Executor, self.executor.is_some()),
            (Export::Planner, self.planner.is_some()),
            (Export::Checker, self.checker.is_some()),
            (Export::Mailbox, self.mailbox.is_some()),
            (Export::Sequencer, self.sequencer.is_some()),
        ];
        found
            .into_iter()
            .filter(|(_, there)| *there)
            .map(|(export, _)| export)
            .collect()
    }
}

/// What a component takes before its first instruction.
#[derive(Debug, Clone, Copy)]
struct Needs {
    memories: u32,
    largest_memory: u64,
    tables: u32,
    largest_table: u64,
}

impl Sandbox {
    /// Makes the engine and empties the directory for workspaces.
    ///
    /// # Errors
    /// When the engine cannot be made or a directory cannot be used.
    pub fn new(options: &Options) -> Result<Self, Error> {
        Ok(Sandbox {
            engines: Engines::new(options.slots)?,
            cache: Cache::open(options.cache_dir.clone(), options.cache_key, options.compiler.clone())?,
            linked: Mutex::default(),
            total: Arc::new(Total::new(
                options.memory.map_or_else(most_of_the_machine, |size| size.0),
            )),
            workspaces: Arc::new(Workspaces::open(&options.workspaces)?),
        })
    }

    /// Attempts that can be live at once: what was asked for, or what the machine holds.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.engines.slots()
    }

    /// What all attempts together hold.
    pub(crate) fn total(&self) -> &Total {
        &self.total
    }

    /// Makes an agent ready. Compiles when it must, which takes up to a minute, and blocks.
    ///
    /// # Errors
    /// When the component cannot be had, is not compilable, imports what was not granted or is not offered, exports nothing that can be called or
    /// something of another type, declares more than the agent's limits, or when a directory that was granted is not one.
    pub fn prepare(
        &self,
        host: Arc<dyn Host>,
        identity: Identity,
        component: Digest,
        effective: Effective,
    ) -> Result<Arc<Prepared>, Refused> {
        if let Some(prepared) = self.prepare_compiled(&host, &identity, component, &effective)? {
            return Ok(prepared);
        }
        self.compile(&*host, effective.limits.tier, component, || host.component(component))?;
        let prepared = self.prepare_compiled(&host, &identity, component, &effective)?;
        prepared.ok_or_else(|| refuse(Reason::HostFault, "the compiled code has gone from the cache"))
    }

    /// The same without compiling: `None` when there is no code in the cache. Takes milliseconds, of reading.
    pub(crate) fn prepare_compiled(
        &self,
        host: &Arc<dyn Host>,
        identity: &Identity,
        component: Digest,
        effective: &Effective,
    ) -> Result<Option<Arc<Prepared>>, Refused> {
        effective.mounts.iter().try_for_each(check_mount)?;
        let Some(linked) = self.linked(component, effective)? else {
            return Ok(None);
        };
        linked.needs.check(&effective.limits)?;
        Ok(Some(Arc::new(Prepared {
            linked,
            identity: Arc::new(identity.clone()),
            grants: Arc::new(Grants::new(effective.word)),
            effective: effective.clone(),
            host: host.clone(),
            total: self.total.clone(),
            workspaces: self.workspaces.clone(),
        })))
    }

    /// Compiles a component for agents of a tier, unless its code is in the cache, and refuses what no tier could instantiate. Blocks.
    ///
    /// # Errors
    /// As [`Sandbox::prepare`], as far as they do not depend on the agent.
    pub(crate) fn compile(
        &self,
        host: &dyn Host,
        tier: Tier,
        digest: Digest,
        bytes: impl FnOnce() -> std::io::Result<Vec<u8>>,
    ) -> Result<(), Refused> {
        let pool = self.pool(tier)?.unbounded().map_err(|error| unusable(&error))?;
        let component = match self.cache.find(&pool, digest) {
            Found::Code(component) => component,
            Found::Unfit(_) | Found::Nothing => self.cache.compile(&pool, digest, &component_of(bytes)?)?,
            Found::Foreign(why) => {
                tracing::warn!(component = %digest, why, "a file of the code cache was refused; compiling anew");
                // Before the word about it, so that there is one word.
                self.cache.remove(&pool, digest);
                host.event(RunnerEvent::CacheRefused { digest, why });
                self.cache.compile(&pool, digest, &component_of(bytes)?)?
            }
        };
        let checked = Needs::of(&component).and_then(|needs| needs.check(&Tier::Large.limits()));
        checked.map_err(|refused| {
            self.cache.remove(&pool, digest);
            // As a file, not as an attempt: no agent could ever run it.
            let reason = match refused.reason {
                Reason::MemoryLimit => Reason::CompileLimit,
                other => other,
            };
            Refused { reason, ..refused }
        })
    }

    fn pool(&self, tier: Tier) -> Result<Pool, Refused> {
        self.engines.of(tier).map_err(|error| unusable(&error))
    }

    /// What is linked already, or can be from the cache.
    fn linked(&self, digest: Digest, effective: &Effective) -> Result<Option<Arc<Linked>>, Refused> {
        let tier = effective.limits.tier;
        let key = (digest, tier == Tier::Large, effective.word.0);
        let entry = {
            let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever holds an entry while it is swept makes its own; the other is dropped with its last agent.
            linked.retain(|_, entry| {
                Arc::strong_count(entry) > 1 || entry.try_lock().is_ok_and(|linked| linked.strong_count() > 0)
            });
            linked.entry(key).or_default().clone()
        };
        let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(linked) = entry.upgrade() {
            return Ok(Some(linked));
        }
        let pool = self.pool(tier)?;
        let component = match self.cache.find(&pool, digest) {
            Found::Code(component) => component,
            // Nothing, or nothing of ours: whoever compiles it says so.
            Found::Nothing | Found::Foreign(_) => return Ok(None),
            Found::Unfit(why) => {
                let why = escape(why.as_bytes(), 512);
                let message = format!("the component declares more than tier `{tier}` allows: {why}; raise the tier");
                return Err(refuse(Reason::MemoryLimit, message));
            }
        };
        let linked = Arc::new(link(&pool.engine, &component, effective.word)?);
        *entry = Arc::downgrade(&linked);
        Ok(Some(linked))
    }
}

fn unusable(error: &Error) -> Refused {
    refuse(Reason::Overloaded, error.to_string())
}

fn component_of(bytes: impl FnOnce() -> std::io::Result<Vec<u8>>) -> Result<Vec<u8>, Refused> {
    bytes().map_err(|error| refuse(Reason::NotFound, format!("cannot read the component: {error}")))
}

fn refuse(reason: Reason, message: impl Into<String>) -> Refused {
    Refused {
        reason,
        message: message.into(),
    }
}

/// Three quarters of the machine's memory, for all attempts together.
fn most_of_the_machine() -> u64 {
    let machine = rustix::system::sysinfo();
    let total = machine.totalram.saturating_mul(u64::from(machine.mem_unit).max(1));
    total / 4 * 3
}

/// Gate, then link: the gate names what is missing; the linker, which holds only what was granted, is the second wall.
fn link(engine: &Engine, component: &Component, word: GrantWord) -> Result<Linked, Refused> {
    let kind = component.component_type();
    let imports: Vec<_> = kind.imports(engine).collect();
    if let Some((name, _)) = imports.iter().find(|(_, import)| import.implements.is_some()) {
        let message = format!(
            "the import `{}` stands for another interface",
            escape(name.as_bytes(), 128)
        );
        return Err(refuse(Reason::UnsupportedImport, message));
    }
    grant::gate(imports.iter().map(|(name, _)| *name), word)?;
    let mut linker = Linker::new(engine);
    caps::link(&mut linker, word).map_err(|error| refuse(Reason::HostFault, format!("{error:#}")))?;
    let pre = linker.instantiate_pre(component).map_err(|error| {
        let text = escape(format!("{error:#}").as_bytes(), 512);
        refuse(
            Reason::UnsupportedImport,
            format!("the component cannot be linked: {text}"),
        )
    })?;
    let typed = |export: Export, error: wasmtime::Error| {
        let text = escape(format!("{error:#}").as_bytes(), 512);
        refuse(
            Reason::NotAComponent,
            format!(
                "`{}` is exported with another type than wit/ says: {text}",
                export.interface()
            ),
        )
    };
    let exported = |export: Export| {
        component
            .get_export_index(None, format!("{}@0.1.0", export.interface()))
            .is_some()
    };
    let mut linked = Linked {
        engine: engine.clone(),
        executor: None,
        planner: None,
        checker: None,
        mailbox: None,
        sequencer: None,
        needs: Needs::of(component)?,
        pre,
    };
    for export in Export::ALL.iter().copied().filter(|export| exported(*export)) {
        let pre = &linked.pre;
        match export {
            Export::Executor => {
                let found = bindings::executor::GuestIndices::new(pre).map_err(|error| typed(export, error))?;
                linked.executor = Some(found);
            }
            Export::Planner => {
                let found = bindings::planner::GuestIndices::new(pre).map_err(|error| typed(export, error))?;
                linked.planner = Some(found);
            }
            Export::Checker => {
                let found = bindings::checker::GuestIndices::new(pre).map_err(|error| typed(export, error))?;
                linked.checker = Some(found);
            }
            Export::Mailbox => {
                let found = bindings::mailbox::GuestIndices::new(pre).map_err(|error| typed(export, error))?;
                linked.mailbox = Some(found);
            }
            Export::Sequencer => {
                let found = bindings::sequencer::GuestIndices::new(pre).map_err(|error| typed(export, error))?;
                linked.sequencer = Some(found);
            }
        }
    }
    if linked.exports().is_empty() {
        let message = "the component exports none of skep:agent/executor, skep:agent/planner, skep:agent/sequencer, skep:agent/checker and skep:agent/mailbox (version 0.1)";
        return Err(refuse(Reason::NotAComponent, message));
    }
    Ok(linked)
}

impl Needs {
    fn of(component: &Component) -> Result<Self, Refused> {
        let Some(needs) = component.resources_required() else {
            let message = "the component imports core modules, so what it needs cannot be told";
            return Err(refuse(Reason::UnsupportedImport, message));
        };
        Ok(Needs {
            memories: needs.num_memories,
            largest_memory: needs.max_initial_memory_size.unwrap_or(0),
            tables: needs.num_tables,
            largest_table: needs.max_initial_table_size.unwrap_or(0),
        })
    }

    /// Refuses what could never be instantiated under these limits.
    fn check(&self, limits: &Limits) -> Result<(), Refused> {
        let message = if self.largest_memory > limits.memory.0 {
            format!(
                "begins with {} bytes of memory; the limit is {}",
                self.largest_memory, limits.memory
            )
        } else if self.memories > limits.memories {
            format!("has {} memories; the limit is {}", self.memories, limits.memories)
        } else if self.tables > limits.tables {
            format!("has {} tables; the limit is {}", self.tables, limits.tables)
        } else if self.largest_table > limits.table_elements {
            format!(
                "begins with {} table elements; the limit is {}",
                self.largest_table, limits.table_elements
            )
        } else {
            return Ok(());
        };
        Err(refuse(
            Reason::MemoryLimit,
            format!("the component {message}; raise `limits` or the tier"),
        ))
    }
}

/// Refuses what is not plainly a directory: the path was resolved when the crew was assembled, so that a link on the way to it now is a trick.
fn check_mount(mount: &Mount) -> Result<(), Refused> {
    let path = Path::new(&mount.host);
    let bad = |what: String| {
        Err(refuse(
            Reason::MountDenied,
            format!("the mount `{}` ({}) {what}", mount.guest, mount.host),
        ))
    };
    if !path.is_absolute() {
        return bad("is not an absolute path".into());
    }
    match path.canonicalize() {
        Err(error) => bad(format!("cannot be opened: {error}")),
        Ok(real) if real != path => bad(format!("leads to {}; name that directory itself", real.display())),
        Ok(real) if !real.is_dir() => bad("is not a directory".into()),
        Ok(_) => Ok(()),
    }
}
