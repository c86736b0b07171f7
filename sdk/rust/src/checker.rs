//! The export `checker`: verify what another agent did.

/// Export a type that implements [`Checker`](crate::Checker) as the component's checker. Once per component.
#[macro_export]
macro_rules! checker {
    ($agent:ident) => {
        // The exported names are no valid symbols for a native linker.
        #[cfg(target_family = "wasm")]
        $crate::bindings::checker_agent::export_checker!($agent with_types_in $crate::bindings::checker_agent);
        #[cfg(not(target_family = "wasm"))]
        const _: fn($crate::Task, $crate::Payload) -> ::core::result::Result<$crate::Verdict, $crate::Failure> =
            <$agent as $crate::Checker>::check;
    };
}
