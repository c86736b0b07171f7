//! How failures of the tasks that agents make are tried again, and how long these may take.

use crate::{RetryPolicy, Timeouts};

impl RetryPolicy {
    /// So many executions after the first, everything else as the host has it.
    #[must_use]
    pub fn times(retries: u32) -> RetryPolicy {
        RetryPolicy {
            max_retries: Some(retries),
            ..RetryPolicy::default()
        }
    }
}

impl Default for RetryPolicy {
    /// All as the host has it.
    fn default() -> Self {
        RetryPolicy {
            max_retries: None,
            initial_delay: None,
            factor_percent: None,
            max_delay: None,
            jitter_percent: None,
            non_retryable: Vec::new(),
        }
    }
}

impl Default for Timeouts {
    /// None.
    fn default() -> Self {
        Timeouts {
            schedule_to_start: None,
            start_to_close: None,
            schedule_to_close: None,
        }
    }
}
