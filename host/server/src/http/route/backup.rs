//! `/v1/backup`

use std::sync::Arc;

use axum::{extract::State, response::Response};
use skep_rules::{command::Command, reason::Reason};

use super::parts::{self, Parts};
use crate::{
    backup,
    driver::{ADMIN, Driver},
    host::{Error, Shared},
    http::{
        api::problem::Problem,
        problem::{Answer, Refusal},
    },
};

/// Make a backup of everything that is durable now, as of one position, as a stream. One at a time. The stream breaks off when the host stops, when
/// something is found damaged, or when nobody takes any of it for as long as a request may last: a backup that does not end as it should is refused
/// by `skep restore`.
#[utoipa::path(post, path = "/v1/backup", tag = "host",
    responses((status = 200, description = "The backup", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn make(State(shared): State<Arc<Shared>>) -> Answer<Response> {
    let permit = Arc::clone(&shared.backups).try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::new(Reason::Overloaded, "another backup is being made"))?;
    // Before a byte of it leaves.
    let decided = shared
        .driver
        .decide(Vec::new(), |_, _, _| Ok(Command::NoteBackup { by: ADMIN.to_owned() }))?;
    shared.driver.store.wait(decided.position).await?;
    let data_dir = shared.data_dir.clone();
    let write = move |driver: &Driver, to: Parts| {
        let made = backup::write(&driver.store, &data_dir, to)?;
        tracing::info!(position = made.position.0, bytes = made.bytes, "a backup was made");
        Ok::<_, Error>(())
    };
    Ok(parts::answer(&shared.driver, permit, "a backup", write))
}
