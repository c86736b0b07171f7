//! Connections: accepted while there is room, each with bounds on buffers and time, ended in order when the host stops.

use std::{pin::pin, sync::Arc};

use axum::{
    Router,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use skep_rules::limits::{GRACE, MAX_CONNECTIONS, MAX_WAIT, REQUEST, REQUEST_HEAD};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::TaskTracker;

use super::problem::Refusal;
use crate::{driver::Driver, host::Shared};

/// Bytes that a connection may buffer: a head, and a little of the body.
const BUFFER: usize = 64 << 10;

/// Answers until the host stops or fails.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let driver = Arc::clone(&shared.driver);
    let router = super::router(shared);
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = driver.stopping.cancelled() => break,
            () = driver.failed.cancelled() => break,
            (accepted, permit) = next => (accepted, permit.expect("the semaphore is never closed")),
        };
        match accepted {
            Ok((stream, _)) => drop(connections.spawn(connection(stream, router.clone(), Arc::clone(&driver), permit))),
            Err(error) => {
                // Mostly too many open files: give others time to close some.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(GRACE.duration(), connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(open = connections.len(), "connections that did not end in time are cut");
    }
}

async fn connection(stream: TcpStream, router: Router, driver: Arc<Driver>, _permit: OwnedSemaphorePermit) {
    // Small answers are not to wait for more.
    drop(stream.set_nodelay(true));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD.duration())
        .max_buf_size(BUFFER);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let mut ending = false;
    loop {
        tokio::select! {
            // A client that went away, or does not speak HTTP, is its own affair.
            _ = connection.as_mut() => return,
            () = driver.ended.cancelled() => return,
            () = driver.stopping.cancelled(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Bounds the time until an answer begins.
pub(super) async fn limit_time(request: Request, next: Next) -> Response {
    let waits = request.uri().query().is_some_and(|query| query.contains("wait="));
    // An upload waits for its turn at the compiler, and for the compiler.
    let waits = waits || (request.method() == axum::http::Method::POST && request.uri().path() == "/v1/plugins");
    let limit = if waits {
        REQUEST.duration() + MAX_WAIT.duration()
    } else {
        REQUEST.duration()
    };
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::too_slow().into_response(),
    }
}
