//! Who may upload a plugin now: a few at a time, and of these a few of each publisher. What an upload holds in memory is so bounded, and one
//! publisher's queue at the compiler keeps nobody else waiting.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use skep_rules::{
    limits::{MAX_PUBLISHER_UPLOADS, MAX_UPLOADS},
    reason::Reason,
    rejection::Rejection,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places.
#[derive(Debug)]
pub(crate) struct Uploads {
    all: Arc<Semaphore>,
    /// Of publishers that have an upload at the compiler; the others are dropped when the next comes. Locked for a look.
    each: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Uploads {
    pub(crate) fn new() -> Self {
        Uploads {
            all: Arc::new(Semaphore::new(MAX_UPLOADS)),
            each: Mutex::default(),
        }
    }

    /// Waits for a place to upload in.
    pub(crate) async fn enter(&self) -> OwnedSemaphorePermit {
        let place = Arc::clone(&self.all).acquire_owned().await;
        place.expect("the semaphore is never closed")
    }

    /// A place in a publisher's queue at the compiler.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] when it has [`MAX_PUBLISHER_UPLOADS`] there.
    pub(crate) fn queue(&self, publisher: &str) -> Result<OwnedSemaphorePermit, Rejection> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has a place in a queue has a clone of it.
        each.retain(|_, queue| Arc::strong_count(queue) > 1);
        let queue = each
            .entry(publisher.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new(MAX_PUBLISHER_UPLOADS)));
        Arc::clone(queue).try_acquire_owned().map_err(|_| {
            let message = format!(
                "{MAX_PUBLISHER_UPLOADS} plugins of `{publisher}` are being compiled or wait for it; send this one again when they are done"
            );
            Rejection::new(Reason::Overloaded, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_publisher_has_a_few_places_and_leaves_the_others_theirs() {
        let uploads = Uploads::new();
        let mut held: Vec<_> = (0..MAX_PUBLISHER_UPLOADS)
            .map(|_| uploads.queue("acme").expect("there is room"))
            .collect();
        assert_eq!(
            uploads.queue("acme").map_err(|refused| refused.reason).err(),
            Some(Reason::Overloaded)
        );
        drop(uploads.queue("other").expect("another has a queue of its own"));
        held.pop();
        held.push(uploads.queue("acme").expect("one is done"));
        assert_eq!(
            uploads.each.lock().unwrap().len(),
            1,
            "queues that nobody is in are dropped"
        );
        const { assert!(MAX_PUBLISHER_UPLOADS * 2 < MAX_UPLOADS) };
    }
}
