//! `skep up`: runs a host until Ctrl-C or SIGTERM.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde::Serialize;
use skep::{
    clock::Clock,
    host::{self, Host},
    telemetry,
};
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use crate::{
    cli::Exit,
    config::{Config, Flags, Loaded, LogFormat},
    failure::Failure,
};

/// Arguments of `skep up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A loopback address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Attempts that are live at once
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// For development: take and run plugins that nobody signed
    #[arg(long)]
    dev: bool,
}

#[derive(Serialize)]
struct Up {
    url: String,
    pid: u32,
    data_dir: String,
    dev: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let flags = Flags {
        listen: args.listen,
        slots: args.slots,
        ..Flags::default()
    };
    let loaded = context.config_with(flags)?;
    let config = &loaded.config;
    let format = match config.log.format {
        LogFormat::Auto => telemetry::Format::Auto,
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    telemetry::start(&config.log.level, format, context.output.color()).map_err(|error| {
        Failure::usage(error.to_string()).next("set `log.level` to a level such as `info`, or to `target=level` pairs")
    })?;
    runtime()?.block_on(serve(context, &loaded, args.dev))
}

/// The runtime that a host runs on: its driver and HTTP; guests have threads of their own.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("control")
        .build();
    runtime.context("cannot start threads")
}

/// The options of a host as it is configured.
pub(crate) fn options(config: &Config) -> host::Options {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    host::Options {
        data_dir: config.data_dir.clone(),
        listen: config.listen,
        ceiling: config.ceiling.clone(),
        slots: config.slots,
        guest_threads: if config.guest_threads == 0 {
            cores
        } else {
            config.guest_threads
        },
        compiler: host::own_compiler(),
        webhooks: Vec::new(),
        clock: Clock::system(),
        dev: false,
        work: true,
    }
}

/// Starts a host.
pub(crate) async fn start(options: host::Options) -> Result<Host> {
    // The listener and the store are opened in there, so the future is large.
    let started = Box::pin(Host::start(options)).await;
    started.map_err(|error| failed(error).into())
}

/// What a host said, with all its causes in one line.
pub(crate) fn failed(error: host::Error) -> Failure {
    let reason = error.reason();
    Failure::of(reason, format!("{:#}", anyhow::Error::from(error)))
}

async fn serve(context: &Context, loaded: &Loaded, dev: bool) -> Result<Exit> {
    let config = &loaded.config;
    let mut terminate = signal(SignalKind::terminate())?;
    let host = start(host::Options {
        dev,
        webhooks: loaded.webhooks(&context.environment)?,
        ..options(config)
    })
    .await?;
    let up = Up {
        url: host.url().to_owned(),
        pid: std::process::id(),
        data_dir: config.data_dir.display().to_string(),
        dev,
    };
    context.output.one(&up, || format!("{}\n", up.url))?;
    context
        .output
        .note(&format!("data in {}; Ctrl-C stops it", up.data_dir));
    if dev {
        context
            .output
            .note("! DEV MODE: plugins that nobody signed are taken and run. Not for anything that matters.");
    }
    let lost = tokio::select! {
        _ = tokio::signal::ctrl_c() => None,
        _ = terminate.recv() => None,
        error = host.failed() => Some(error),
    };
    let stopped = tokio::select! {
        stopped = host.stop() => stopped,
        _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
    };
    match lost {
        Some(error) => Err(failed(error).into()),
        None => stopped.map(|()| Exit::Done).map_err(|error| failed(error).into()),
    }
}
