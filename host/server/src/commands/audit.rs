//! `skep audit`: who did what. Asks the host where one runs, and reads the data directory itself where none does.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use skep::http::api::audit::{Row, Verified};
use skep_rules::{audit::AuditEntry, id::Digest, limits::MAX_PAGE};
use skep_store::{AuditRow, Store};

use super::Context;
use crate::{
    cli::Exit,
    failure::Failure,
    output::{time, word},
};

/// `skep audit …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print the last rows
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=MAX_PAGE as u64))]
        rows: u64,
    },
    /// Recompute the whole chain
    Verify,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Exit> {
    match command {
        Command::Tail { rows } => {
            let rows = tail(context, *rows)?;
            context
                .output
                .list(&rows, ["row", "when", "what", "about", "why", "detail"], |row| {
                    let Some(entry) = &row.entry else {
                        return [
                            row.seq.to_string(),
                            String::new(),
                            "expired".to_owned(),
                            String::new(),
                            String::new(),
                            String::new(),
                        ];
                    };
                    let task = entry.task.map(|task| task.to_string());
                    let about = task
                        .or(entry.agent.map(|agent| agent.to_string()))
                        .or(entry.crew.map(|crew| crew.to_string()));
                    [
                        row.seq.to_string(),
                        time(entry.at),
                        word(&entry.kind),
                        about.unwrap_or_default(),
                        entry.reason.map(|reason| reason.to_string()).unwrap_or_default(),
                        entry.detail.clone(),
                    ]
                })?;
        }
        Command::Verify => {
            let verified = match running(context)? {
                Some(client) => context.wait(client.get("/v1/audit/verify"))?,
                None => offline(context)?
                    .0
                    .verify_audit()
                    .map(verified)
                    .map_err(|error| broken(&error))?,
            };
            context.output.one(&verified, || {
                format!(
                    "{} rows, all of them follow from each other\nchain  {}\n",
                    verified.rows, verified.chain
                )
            })?;
        }
    }
    Ok(Exit::Done)
}

/// The last rows, the oldest first.
fn tail(context: &Context, rows: u64) -> Result<Vec<Row>> {
    let first = |last: u64| (last + 1).saturating_sub(rows).max(1);
    match running(context)? {
        Some(client) => context.wait(async {
            let end: Verified = client.get("/v1/audit/verify").await?;
            let page: skep::http::api::Page<Row> = client
                .get(&format!("/v1/audit?from={}&limit={rows}", first(end.rows)))
                .await?;
            Ok(page.items)
        }),
        None => {
            let (store, _) = offline(context)?;
            let end = store.verify_audit().map_err(|error| broken(&error))?;
            let limit = usize::try_from(rows).unwrap_or(MAX_PAGE);
            store.audit(first(end.seq), limit)?.into_iter().map(row).collect()
        }
    }
}

/// The host that the flags name, or the one that holds the data directory, if any does.
pub(crate) fn running(context: &Context) -> Result<Option<crate::client::Client>> {
    let unreachable = |error: &anyhow::Error| {
        error
            .downcast_ref::<Failure>()
            .is_some_and(|failure| failure.exit == Exit::Unreachable)
    };
    let client = match context.client() {
        Ok(client) => client,
        Err(error) if unreachable(&error) && context.global.host.is_none() => return Ok(None),
        Err(error) => return Err(error),
    };
    // A host that was killed leaves its file behind.
    match context.wait(client.get::<skep::http::api::host::Host>("/v1/host")) {
        Err(error) if unreachable(&error) && context.global.host.is_none() => Ok(None),
        Err(error) => Err(error),
        Ok(_) => Ok(Some(client)),
    }
}

/// The store of the data directory, while no host has it, and that directory.
pub(crate) fn offline(context: &Context) -> Result<(Store, PathBuf)> {
    let data_dir = context.config()?.config.data_dir;
    let Some(store) = skep::examine::open(&data_dir, false)? else {
        let failure = Failure::new(Exit::NotFound, format!("{} holds nothing yet", data_dir.display()));
        return Err(failure.next("`skep up` makes it; --data-dir DIR names another").into());
    };
    Ok((store, data_dir))
}

fn verified(head: skep_store::AuditHead) -> Verified {
    Verified {
        rows: head.seq,
        chain: Digest::from_bytes(head.chain),
    }
}

fn row(row: AuditRow) -> Result<Row> {
    let entry: Option<AuditEntry> = row
        .payload
        .as_deref()
        .map(minicbor::decode)
        .transpose()
        .with_context(|| format!("row {} cannot be read by this version", row.seq))?;
    Ok(Row {
        seq: row.seq,
        entry,
        digest: Digest::from_bytes(row.digest),
        chain: Digest::from_bytes(row.chain),
    })
}

fn broken(error: &skep_store::Error) -> Failure {
    Failure::new(Exit::Invalid, format!("the audit log is not what was written: {error}"))
        .next("keep a copy of the data directory as it is, then restore a backup")
}
