//! The export `sequencer`: put the tasks of a plan in order.

/// Export a type that implements [`Sequencer`](crate::Sequencer) as the component's sequencer. Once per component.
#[macro_export]
macro_rules! sequencer {
    ($agent:ident) => {
        // The exported names are no valid symbols for a native linker.
        #[cfg(target_family = "wasm")]
        $crate::bindings::sequencer_agent::export_sequencer!($agent with_types_in $crate::bindings::sequencer_agent);
        #[cfg(not(target_family = "wasm"))]
        const _: fn($crate::Plan) -> ::core::result::Result<$crate::Plan, $crate::Failure> =
            <$agent as $crate::Sequencer>::sequence;
    };
}
