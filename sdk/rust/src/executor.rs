//! The export `executor`: execute tasks.

use serde::Serialize;

use crate::{Outcome, Payload, payload};

impl Outcome {
    /// The task is done and this is its result, as JSON inside the outcome.
    ///
    /// # Errors
    /// The value cannot be JSON, or is larger than [`payload::MAX_INLINE`]; [`crate::artifacts::output`] has no such bound.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Outcome, payload::Error> {
        Payload::json(value).map(Outcome::Done)
    }
}

/// Export a type that implements [`Executor`](crate::Executor) as the component's executor. Once per component.
#[macro_export]
macro_rules! executor {
    ($agent:ident) => {
        // The exported names are no valid symbols for a native linker.
        #[cfg(target_family = "wasm")]
        $crate::bindings::executor_agent::export_executor!($agent with_types_in $crate::bindings::executor_agent);
        #[cfg(not(target_family = "wasm"))]
        const _: fn($crate::Task) -> ::core::result::Result<$crate::Outcome, $crate::Failure> =
            <$agent as $crate::Executor>::execute;
    };
}
