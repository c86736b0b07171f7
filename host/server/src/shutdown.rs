//! How a host ends, in order, and what makes it close its doors earlier.

use std::{path::PathBuf, sync::Arc, sync::atomic::Ordering};

use skep_rules::limits::{GRACE, LOW_SPACE, SPACE_CHECK};

use skep_runtime::Runner;

use crate::{
    data_dir,
    driver::Driver,
    host::{Error, Host},
};

/// Stops a host: no new requests, waits end, attempts are given back (and go on at the next start), the rest becomes durable.
pub(crate) async fn stop(host: Host) -> Result<(), Error> {
    let driver = Arc::clone(&host.shared.driver);
    host.shared.ready.store(false, Ordering::Release);
    driver.stopping.cancel();
    // Before the runner: what it ends because it is stopped must not be taken for the agents' doing.
    let closed = driver.close();
    host.shared.runner.stop().await;
    driver.blocking.close();
    if tokio::time::timeout(GRACE.duration(), driver.blocking.wait())
        .await
        .is_err()
    {
        tracing::warn!("some reads of the host did not end in time");
    }
    let written = closed.and_then(|()| driver.checkpoint());
    let flushed = {
        let store = driver.store.clone();
        tokio::task::spawn_blocking(move || {
            let flushed = store.flush();
            flushed.and(store.close())
        })
        .await
    };
    driver.ended.cancel();
    host.tasks.close();
    if tokio::time::timeout(GRACE.duration() * 2, host.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("some tasks of the host did not end in time");
    }
    if let Some(why) = driver.failure() {
        return Err(Error::Failed(why));
    }
    written?;
    match flushed {
        Ok(flushed) => flushed.map_err(|error| Error::Failed(error.to_string().into()))?,
        Err(panicked) => return Err(Error::Failed(panicked.to_string().into())),
    }
    if host.works {
        data_dir::sign_off(&host.data_dir);
    }
    Ok(())
}

/// Ends what runs as soon as the host has failed: nothing of it could be remembered.
pub(crate) async fn fence(driver: Arc<Driver>, runner: Arc<Runner>) {
    tokio::select! {
        () = driver.stopping.cancelled() => {}
        () = driver.failed.cancelled() => runner.stop().await,
    }
}

/// Closes admission while the disk is nearly full, until the host stops.
pub(crate) async fn watch_space(driver: Arc<Driver>, data_dir: PathBuf) {
    loop {
        match rustix::fs::statvfs(&data_dir) {
            Ok(found) => {
                let low = found.f_bavail.saturating_mul(found.f_frsize) < LOW_SPACE;
                if driver.low_space.swap(low, Ordering::Relaxed) != low {
                    tracing::warn!(low, "free space of the data directory");
                }
            }
            Err(error) => tracing::warn!(%error, "the free space of the data directory is unknown"),
        }
        tokio::select! {
            () = driver.stopping.cancelled() => return,
            () = tokio::time::sleep(SPACE_CHECK.duration()) => {}
        }
    }
}
