//! What the routes do, one file per resource.

pub(super) mod agents;
pub(super) mod approvals;
mod archive;
pub(super) mod artifacts;
pub(super) mod audit;
pub(super) mod backup;
pub(super) mod crews;
pub(super) mod events;
pub(super) mod host;
pub(super) mod keys;
pub(super) mod logs;
pub(super) mod messages;
pub(super) mod metrics;
mod parts;
mod plans;
pub(super) mod plugins;
pub(super) mod records;
pub(super) mod schedules;
pub(super) mod state;
mod stream;
pub(super) mod tasks;
mod upload;

use std::sync::Arc;

use super::problem::Answer;
use crate::driver::{Driver, Error};

/// Runs something to its end, also when the client goes away meanwhile: half of it would leave files behind.
async fn owned<T: Send + 'static>(
    driver: &Arc<Driver>,
    work: impl Future<Output = Answer<T>> + Send + 'static,
) -> Answer<T> {
    match driver.blocking.spawn(work).await {
        Ok(done) => done,
        Err(_) => Err(super::problem::Refusal::panicked()),
    }
}

/// Runs something that waits for the disk where waiting is allowed.
async fn blocking<T: Send + 'static>(
    driver: &Arc<Driver>,
    work: impl FnOnce(&Driver) -> Result<T, Error> + Send + 'static,
) -> Answer<T> {
    let on = Arc::clone(driver);
    match driver.blocking.spawn_blocking(move || work(&on)).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(super::problem::Refusal::panicked()),
    }
}
