//! A whole host: data directory, store, shard, runner and HTTP listener, started and stopped together in one process.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use skep_rules::{
    grant::Ceiling,
    limits::{MAX_PENDING_BYTES, MAX_UPLOAD_BYTES, STORE_CACHE_BYTES},
    quantity::Time,
    reason::Reason,
    shard::Shard,
};
use skep_runtime::Runner;
use skep_store::{Recovered, Store};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::{
    clock::{Clock, NoRandomness},
    data_dir,
    driver::{self, Driver},
    http::{self, api::host::HostFile},
    install::Place,
    perform::Side,
    shutdown,
    uploads::Uploads,
    webhook::{self, Webhook},
};

/// How a host is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything that it remembers; made with mode 0700 where it is not there. One host at a time.
    pub data_dir: PathBuf,
    /// Where it listens: a loopback address; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The most that it lets agents have.
    pub ceiling: Ceiling,
    /// Attempts live at a time. Default 1,000.
    pub slots: u32,
    /// Threads that guests run on. Default: as many as there are cores.
    pub guest_threads: usize,
    /// What turns components into code. Default: this program, as a process of its own; a program that is not the `skep` binary says otherwise.
    pub compiler: skep_runtime::Compiler,
    /// Who is told of what happens. Default: nobody.
    pub webhooks: Vec<Webhook>,
    /// Where the time comes from. Default: the machine.
    pub clock: Clock,
    /// Whether plugins that nobody signed are taken and run: for development, on loopback only. Default: no.
    pub dev: bool,
    /// Whether agents are made ready and tasks worked on; without it the host only answers, and does not say in `host.json` that it is there.
    /// Default: yes.
    pub work: bool,
}

impl Options {
    /// A host in a directory, listening on a free loopback port, everything else as by default.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Options {
            data_dir: data_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ceiling: Ceiling::default(),
            slots: 1_000,
            guest_threads: std::thread::available_parallelism().map_or(2, usize::from),
            compiler: own_compiler(),
            webhooks: Vec::new(),
            clock: Clock::system(),
            dev: false,
            work: true,
        }
    }
}

/// This very program as a compiler, also when its file has been replaced since it was started. Only in the `skep` binary.
#[must_use]
pub fn own_compiler() -> skep_runtime::Compiler {
    skep_runtime::Compiler::Child {
        program: PathBuf::from("/proc/self/exe"),
    }
}

/// Why a host could not be started, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory holds something else.
    #[error("{} is not a data directory of skep: it holds `{found}`; choose an empty or new directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Something that does not belong there.
        found: String,
    },
    /// A backup is restored into an empty directory only.
    #[error("{} holds `{found}`; a backup is restored into an empty or new directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Something that is in it.
        found: String,
    },
    /// Another host has it.
    #[error("{} is in use by another host{}; stop it, or choose another directory", path.display(), .by.as_deref().unwrap_or_default())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Which host, where that is known.
        by: Option<String>,
    },
    /// A file or directory cannot be used.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is remembered cannot be read.
    #[error("what {} remembers cannot be read", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address is not a loopback address.
    #[error("{address} is not a loopback address; this host listens on loopback only (127.0.0.1 or [::1])")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be had.
    #[error("cannot listen on {address}; choose another port, or port 0 for a free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The runner cannot be started.
    #[error("cannot start the runner")]
    Runner(#[from] skep_runtime::Error),
    /// The driver cannot begin.
    #[error("cannot begin")]
    Driver(#[from] driver::Error),
    /// No randomness, so no token.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The host failed while it ran; what it had said is durable, nothing else is.
    #[error("the host failed: {0}")]
    Failed(Arc<str>),
}

impl Error {
    /// The reason code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Error::Foreign { .. } | Error::Locked { .. } | Error::Io { .. } | Error::Damaged { .. } => {
                Reason::DataDirectory
            }
            Error::NotEmpty { .. } => Reason::Conflict,
            Error::NotLoopback { .. } | Error::Listen { .. } => Reason::InvalidInput,
            Error::Runner(_) | Error::Driver(_) | Error::Randomness(_) | Error::Failed(_) => Reason::HostFault,
        }
    }
}

/// The secret of a data directory that the plugins which come with Skep are signed with when they are installed there; made, with the
/// directory, where it is not there. Only its owner reads it.
///
/// # Errors
/// When the directory is not one of ours, or a file cannot be used.
pub fn bundled_secret(data_dir: &Path) -> Result<[u8; 32], Error> {
    data_dir::open(data_dir)?;
    let text = data_dir::secret(&data_dir.join(data_dir::BUNDLED_KEY))?;
    Ok(*skep_rules::id::Digest::of(text.as_bytes()).as_bytes())
}

/// A running host. Dropping it stops it without order, as a crash would; nothing that was promised is lost. [`Host::stop`] is the way.
#[derive(Debug)]
pub struct Host {
    pub(crate) shared: Arc<Shared>,
    pub(crate) data_dir: PathBuf,
    /// As [`Options::work`] says.
    pub(crate) works: bool,
    url: String,
    token: String,
    /// Owns the driver's tasks and the listener.
    pub(crate) tasks: TaskTracker,
}

/// What requests see of the host.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) driver: Arc<Driver>,
    /// With links resolved: agents never get a mount that shows it.
    pub(crate) data_dir: PathBuf,
    pub(crate) ceiling: Ceiling,
    pub(crate) slots: u32,
    pub(crate) guest_threads: usize,
    pub(crate) started_at: Time,
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) token: skep_rules::id::Digest,
    /// Recovered and resumed.
    pub(crate) ready: AtomicBool,
    pub(crate) uploads: Uploads,
    /// One backup at a time: each keeps the rows of its snapshot on the disk.
    pub(crate) backups: Arc<tokio::sync::Semaphore>,
    pub(crate) runner: Arc<Runner>,
    /// Where the files of plugins come and go.
    pub(crate) place: Place,
    pub(crate) watchers: Arc<tokio::sync::Semaphore>,
    /// Exports under way: each holds a thread.
    pub(crate) exports: Arc<tokio::sync::Semaphore>,
    /// Compressed messages that are being expanded.
    pub(crate) expansions: tokio::sync::Semaphore,
    pub(crate) openapi: std::sync::OnceLock<bytes::Bytes>,
}

impl Host {
    /// Starts a host on the current tokio runtime. It answers requests as soon as this returns; `/readyz` says when it takes work.
    ///
    /// # Errors
    /// [`Error`]; the data directory is as it was, but for directories that were missing.
    pub async fn start(options: Options) -> Result<Self, Error> {
        if !options.listen.ip().is_loopback() {
            return Err(Error::NotLoopback {
                address: options.listen,
            });
        }
        data_dir::open(&options.data_dir)?;
        let (store, shard) = {
            let path = options.data_dir.clone();
            tokio::task::spawn_blocking(move || recover(&path))
                .await
                .map_err(|panicked| Error::Damaged {
                    path: options.data_dir.clone(),
                    source: panicked.into(),
                })??
        };
        // The store's lock is held from here on, so nobody else writes these files.
        let token = data_dir::secret(&options.data_dir.join(data_dir::TOKEN))?;
        let cache_key =
            *skep_rules::id::Digest::of(data_dir::secret(&options.data_dir.join(data_dir::CACHE_KEY))?.as_bytes())
                .as_bytes();
        let listener = TcpListener::bind(options.listen).await;
        let listen = |source| Error::Listen {
            address: options.listen,
            source,
        };
        let listener = listener.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;

        let started_at = options.clock.now();
        let driver = Arc::new(Driver::new(
            shard,
            store,
            options.clock,
            tokio::runtime::Handle::current(),
            options.dev,
        ));
        let runner = Runner::start(
            skep_runtime::Options {
                compiler: options.compiler,
                cache_dir: options.data_dir.join(data_dir::CACHE),
                cache_key,
                workspaces: options.data_dir.join(data_dir::WORKSPACES),
                slots: options.slots,
                memory: None,
                guest_threads: options.guest_threads,
            },
            Arc::new(Side(Arc::downgrade(&driver))),
        )?;
        let resolved = std::fs::canonicalize(&options.data_dir).map_err(|source| Error::Io {
            doing: "find",
            path: options.data_dir.clone(),
            source,
        })?;
        let shared = Arc::new(Shared {
            driver,
            data_dir: resolved,
            ceiling: options.ceiling,
            slots: runner.slots(),
            runner,
            place: Place::of(&options.data_dir),
            guest_threads: options.guest_threads,
            started_at,
            webhooks: options.webhooks,
            token: skep_rules::id::Digest::of(token.as_bytes()),
            ready: AtomicBool::new(false),
            uploads: Uploads::new(),
            backups: Arc::new(tokio::sync::Semaphore::new(1)),
            watchers: Arc::new(tokio::sync::Semaphore::new(skep_rules::limits::MAX_WATCHERS)),
            exports: Arc::new(tokio::sync::Semaphore::new(skep_rules::limits::MAX_EXPORTS)),
            expansions: tokio::sync::Semaphore::new(skep_rules::limits::MAX_EXPANSIONS),
            openapi: std::sync::OnceLock::new(),
        });
        let host = Host {
            url: format!("http://{address}"),
            token,
            data_dir: options.data_dir,
            tasks: TaskTracker::new(),
            works: options.work,
            shared,
        };
        host.begin(listener)?;
        Ok(host)
    }

    /// Starts the tasks, takes up what the life before owed and says where the host is.
    fn begin(&self, listener: TcpListener) -> Result<(), Error> {
        let driver = &self.shared.driver;
        self.tasks.spawn(Arc::clone(driver).keep_gate());
        let runner = &self.shared.runner;
        if self.works {
            driver.resume(Arc::clone(runner))?;
            self.tasks.spawn(Arc::clone(driver).keep_time());
            self.tasks.spawn(Arc::clone(driver).keep_log());
            for webhook in &self.shared.webhooks {
                self.tasks.spawn(webhook::keep(Arc::clone(driver), webhook.clone()));
            }
        }
        self.tasks
            .spawn(shutdown::fence(Arc::clone(driver), Arc::clone(runner)));
        self.tasks
            .spawn(shutdown::watch_space(Arc::clone(driver), self.data_dir.clone()));
        self.tasks.spawn(http::serve::serve(listener, Arc::clone(&self.shared)));
        let file = HostFile {
            url: self.url.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        if self.works {
            data_dir::sign_on(&self.data_dir, &file)?;
        }
        self.shared.ready.store(true, Ordering::Release);
        tracing::info!(url = self.url, "listening");
        Ok(())
    }

    /// Where it listens: `http://127.0.0.1:8080`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The admin token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Waits until the host has failed. Without a failure it waits for ever; call it beside whatever else ends a host.
    pub async fn failed(&self) -> Error {
        self.shared.driver.failed.cancelled().await;
        Error::Failed(self.shared.driver.failure().unwrap_or_else(|| "unknown".into()))
    }

    /// Stops in order: no new requests, waits end, attempts are given back and go on at the next start, everything is durable, `host.json` goes.
    ///
    /// # Errors
    /// [`Error::Failed`] when the last of it could not be made durable.
    pub async fn stop(self) -> Result<(), Error> {
        shutdown::stop(self).await
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let driver = &self.shared.driver;
        driver.stopping.cancel();
        driver.ended.cancel();
    }
}

/// How the store of a data directory is opened.
#[must_use]
pub fn store_options() -> skep_store::Options {
    skep_store::Options {
        blob_bytes: MAX_UPLOAD_BYTES,
        pending_bytes: MAX_PENDING_BYTES,
        cache_bytes: STORE_CACHE_BYTES,
        ..skep_store::Options::default()
    }
}

/// Opens the store and rebuilds the shard from it: records of the checkpoint, then the entries after it.
fn recover(directory: &Path) -> Result<(Store, Shard), Error> {
    let path = directory.join(data_dir::STORE);
    let damaged = |source: Box<dyn std::error::Error + Send + Sync>| Error::Damaged {
        path: path.clone(),
        source,
    };
    let (store, recovered) = Store::open(&path, store_options()).map_err(|error| match error {
        skep_store::Error::Locked { .. } => Error::Locked {
            path: directory.to_owned(),
            by: data_dir::holder(directory),
        },
        skep_store::Error::Foreign { path } => Error::Foreign {
            path,
            found: "other files".to_owned(),
        },
        error => damaged(error.into()),
    })?;
    let shard = replay(&recovered).map_err(damaged)?;
    let replayed = recovered.last.0 - recovered.checkpoint.0;
    Place::of(directory)
        .sweep(shard.state(), &store)
        .map_err(|error| damaged(error.into()))?;
    tracing::info!(replayed, position = shard.position(), "recovered");
    Ok((store, shard))
}

/// The shard that a store remembers.
pub(crate) fn replay(recovered: &Recovered) -> Result<Shard, Box<dyn std::error::Error + Send + Sync>> {
    let records = recovered.records().collect::<Result<Vec<_>, _>>()?;
    let mut shard = Shard::load(recovered.checkpoint.0, records)?;
    for entry in recovered.entries() {
        let (position, entry) = entry?;
        shard.replay(position.0, &entry)?;
    }
    Ok(shard)
}
