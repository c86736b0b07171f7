//! What wit-bindgen makes of `wit/`: one module for the imports, which owns the shared types, and one per exporting world.
//!
//! A component gets exactly the exports whose macro it calls and exactly the imports that it uses, because no module here exports
//! anything by itself.

/// The imports and the shared types.
pub mod imports {
    wit_bindgen::generate!({
        world: "imports",
        path: "wit",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
    });
}

macro_rules! agents {
    ($($(#[$doc:meta])* $name:ident $world:literal $export:literal $module:literal;)*) => {$(
        $(#[$doc])*
        pub mod $name {
            wit_bindgen::generate!({
                world: $world,
                path: "wit",
                with: {
                    "skep:agent/types@0.1.0": super::imports::skep::agent::types,
                    "skep:agent/log@0.1.0": super::imports::skep::agent::log,
                    "skep:agent/heartbeat@0.1.0": super::imports::skep::agent::heartbeat,
                    "skep:agent/context@0.1.0": super::imports::skep::agent::context,
                    "skep:agent/artifacts@0.1.0": super::imports::skep::agent::artifacts,
                    "skep:agent/state@0.1.0": super::imports::skep::agent::state,
                    "skep:agent/tasks@0.1.0": super::imports::skep::agent::tasks,
                    "skep:agent/messages@0.1.0": super::imports::skep::agent::messages,
                },
                additional_derives: [PartialEq],
                pub_export_macro: true,
                export_macro_name: $export,
                default_bindings_module: $module,
            });
        }
    )*};
}

agents! {
    /// The export `executor`.
    executor_agent "executor-agent" "export_executor" "skep_sdk::bindings::executor_agent";
    /// The export `planner`.
    planner_agent "planner-agent" "export_planner" "skep_sdk::bindings::planner_agent";
    /// The export `sequencer`.
    sequencer_agent "sequencer-agent" "export_sequencer" "skep_sdk::bindings::sequencer_agent";
    /// The export `checker`.
    checker_agent "checker-agent" "export_checker" "skep_sdk::bindings::checker_agent";
    /// The export `mailbox`.
    mailbox_agent "mailbox-agent" "export_mailbox" "skep_sdk::bindings::mailbox_agent";
}
