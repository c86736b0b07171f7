//! `/v1/backup`

use std::{io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use skep_rules::{limits::REQUEST, reason::Reason};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    backup,
    host::Shared,
    http::{
        api::problem::Problem,
        problem::{Answer, Refusal},
    },
};

/// Bytes of a part of the stream, and how many may wait for the client.
const PART: usize = 256 << 10;
const WAITING: usize = 4;

/// Make a backup of everything that is durable now, as of one position, as a stream. One at a time. The stream breaks off when the host stops, when
/// something is found damaged, or when nobody takes any of it for as long as a request may last: a backup that does not end as it should is refused
/// by `skep restore`.
#[utoipa::path(post, path = "/v1/backup", tag = "host",
    responses((status = 200, description = "The backup", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn make(State(shared): State<Arc<Shared>>) -> Answer<Response> {
    let permit = Arc::clone(&shared.backups).try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::new(Reason::Overloaded, "another backup is being made"))?;
    let (sender, parts) = mpsc::channel(WAITING);
    let driver = Arc::clone(&shared.driver);
    let tracker = driver.blocking.clone();
    tracker.spawn_blocking(move || {
        let to = Parts {
            sender: sender.clone(),
            runtime: driver.runtime.clone(),
            stopping: driver.stopping.clone(),
        };
        let made = backup::write(&driver.store, &shared.data_dir, io::BufWriter::with_capacity(PART, to));
        match made {
            Ok(made) => tracing::info!(position = made.position.0, bytes = made.bytes, "a backup was made"),
            Err(error) => {
                tracing::error!(error = %format!("{:#}", anyhow::Error::from(error)), "a backup was not finished");
                // The client has gone, or hears of it by the stream that breaks off.
                drop(sender.try_send(Err(io::Error::other("the backup was not finished"))));
            }
        }
        drop(permit);
    });
    let body = stream::unfold(parts, async |mut parts| Some((parts.recv().await?, parts)));
    Ok((
        [(header::CONTENT_TYPE, "application/octet-stream")],
        Body::from_stream(body),
    )
        .into_response())
}

/// Where the backup is written: to the client, as fast as it takes it.
struct Parts {
    sender: mpsc::Sender<io::Result<Bytes>>,
    runtime: tokio::runtime::Handle,
    stopping: CancellationToken,
}

impl io::Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = Bytes::copy_from_slice(bytes);
        self.runtime.block_on(async {
            tokio::select! {
                () = self.stopping.cancelled() => Err(io::Error::other("the host is stopping")),
                sent = tokio::time::timeout(REQUEST.duration(), self.sender.send(Ok(part))) => match sent {
                    Ok(Ok(())) => Ok(bytes.len()),
                    Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
                    Err(_) => Err(io::ErrorKind::TimedOut.into()),
                },
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
