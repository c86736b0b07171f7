//! Talking to a host from a command: to the one that runs, or, where none holds the data directory, to one in this process that only answers.
//! Trust and plugins can so be looked after on a machine without a network and without a host that runs.

use std::path::PathBuf;

use anyhow::Result;
use skep::{
    host::{Host, Options},
    telemetry,
};

use super::{Context, up};
use crate::{cli::Exit, client::Client, failure::Failure};

/// How long the host in this process may take to answer: what it compiles takes seconds.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A host to talk to, for the time of a command.
pub(super) struct Session<'a> {
    context: &'a Context,
    /// Taken at the end.
    runtime: Option<tokio::runtime::Runtime>,
    /// The one in this process, if it is that.
    host: Option<Host>,
    client: Client,
}

impl<'a> Session<'a> {
    /// The host of the flags; without one, a host in this process. A data directory that is not there is made only where `make` says so.
    ///
    /// # Errors
    /// When no host can be reached or started.
    pub(super) fn open(context: &'a Context, make: bool) -> Result<Self> {
        let runtime = up::runtime()?;
        let remote = |client: Client, runtime| Session {
            context,
            runtime: Some(runtime),
            host: None,
            client,
        };
        if context.global.host.is_some() {
            return Ok(remote(context.client()?, runtime));
        }
        let config = context.config()?.config;
        let running = Client::find(&context.global, &config.data_dir);
        if let Ok(client) = &running
            && runtime.block_on(client.answers())
        {
            return Ok(remote(running?, runtime));
        }
        if !make && !config.data_dir.is_dir() {
            return Ok(remote(running?, runtime));
        }
        telemetry::start("error", telemetry::Format::Text, context.output.color())?;
        let options = Options {
            listen: Options::new(PathBuf::new()).listen,
            work: false,
            ..up::options(&config)
        };
        let host = runtime.block_on(up::start(options))?;
        let client = Client::new(host.url(), Some(host.token().to_owned()), PATIENCE)?;
        Ok(Session {
            context,
            runtime: Some(runtime),
            host: Some(host),
            client,
        })
    }

    /// Whom to ask.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for something, at most until Ctrl-C.
    ///
    /// # Errors
    /// What it fails with.
    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = self.runtime.as_ref().expect("it is taken only at the end");
        runtime.block_on(async {
            tokio::select! {
                done = work => done,
                _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted").into()),
            }
        })
    }

    /// The line that a person types in answer to a question, at most until Ctrl-C; `None` where nobody can be asked.
    ///
    /// # Errors
    /// Interrupted.
    pub(super) fn ask(&self, question: &str) -> Result<Option<String>> {
        match self.context.output.interactive() {
            true => self.answer(question).map(Some),
            false => Ok(None),
        }
    }

    /// Asks a question that `--yes` answers.
    ///
    /// # Errors
    /// Interrupted, nobody can be asked, or the answer is no.
    pub(super) fn confirm(&self, question: &str) -> Result<()> {
        self.context.output.confirm(question, |question| self.answer(question))
    }

    /// Reads a line on a thread of its own: once Ctrl-C is waited for, it no longer ends a read.
    fn answer(&self, question: &str) -> Result<String> {
        let output = self.context.output.clone();
        let question = question.to_owned();
        self.wait(async { Ok(tokio::task::spawn_blocking(move || output.ask(&question)).await??) })
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if let Some(host) = self.host.take()
            && let Err(error) = runtime.block_on(Box::pin(host.stop()))
        {
            tracing::error!(%error, "the host did not stop in order");
        }
        // A question that nobody answered waits on a thread of its own; it ends with the process.
        runtime.shutdown_background();
    }
}
