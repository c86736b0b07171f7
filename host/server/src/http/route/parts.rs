//! Answers of any length, written while they are sent.

use std::{io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use skep_rules::limits::REQUEST;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;

/// Bytes of a part of the stream, and how many may wait for the client.
const PART: usize = 256 << 10;
const WAITING: usize = 4;

/// Bytes that are written on a thread of their own, which is held as long as the `permit`. They break off when the writing fails, when the host
/// stops, or when nobody takes any of them for as long as a request may last; `what` is then told to the log.
pub(super) fn answer<E: std::error::Error + Send + Sync + 'static>(
    driver: &Arc<Driver>,
    permit: OwnedSemaphorePermit,
    what: &'static str,
    write: impl FnOnce(&Driver, Parts) -> Result<(), E> + Send + 'static,
) -> Response {
    let (sender, parts) = mpsc::channel(WAITING);
    let on = Arc::clone(driver);
    let tracker = driver.blocking.clone();
    let writing = tracker.spawn_blocking(move || {
        let to = io::BufWriter::with_capacity(
            PART,
            Sending {
                sender: sender.clone(),
                runtime: on.runtime.clone(),
                stopping: on.stopping.clone(),
            },
        );
        if let Err(error) = write(&on, to) {
            tracing::warn!(error = %format!("{:#}", anyhow::Error::from(error)), "{what} was not finished");
            // The client has gone, or hears of it by the stream that breaks off.
            drop(sender.try_send(Err(io::Error::other("the answer was not finished"))));
        }
        drop(permit);
    });
    // Its end is the stream's.
    drop(writing);
    let body = stream::unfold(parts, async |mut parts| Some((parts.recv().await?, parts)));
    let kind = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
    ];
    (kind, Body::from_stream(body)).into_response()
}

/// What an answer is written to. To be flushed at the end.
pub(super) type Parts = io::BufWriter<Sending>;

/// To the client, as fast as it takes it.
pub(super) struct Sending {
    sender: mpsc::Sender<io::Result<Bytes>>,
    runtime: tokio::runtime::Handle,
    stopping: CancellationToken,
}

impl io::Write for Sending {
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
