//! The export `mailbox`: receive messages.

/// Export a type that implements [`Mailbox`](crate::Mailbox) as the component's mailbox. Once per component.
#[macro_export]
macro_rules! mailbox {
    ($agent:ident) => {
        // The exported names are no valid symbols for a native linker.
        #[cfg(target_family = "wasm")]
        $crate::bindings::mailbox_agent::export_mailbox!($agent with_types_in $crate::bindings::mailbox_agent);
        #[cfg(not(target_family = "wasm"))]
        const _: fn($crate::Message) -> ::core::result::Result<::core::option::Option<$crate::Payload>, $crate::Failure> =
            <$agent as $crate::Mailbox>::receive;
    };
}
