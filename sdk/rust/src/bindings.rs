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

/// The export `executor`.
pub mod executor_agent {
    wit_bindgen::generate!({
        world: "executor-agent",
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
        export_macro_name: "export_executor",
        default_bindings_module: "skep_sdk::bindings::executor_agent",
    });
}

/// The export `planner`.
pub mod planner_agent {
    wit_bindgen::generate!({
        world: "planner-agent",
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
        export_macro_name: "export_planner",
        default_bindings_module: "skep_sdk::bindings::planner_agent",
    });
}

/// The export `sequencer`.
pub mod sequencer_agent {
    wit_bindgen::generate!({
        world: "sequencer-agent",
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
        export_macro_name: "export_sequencer",
        default_bindings_module: "skep_sdk::bindings::sequencer_agent",
    });
}

/// The export `checker`.
pub mod checker_agent {
    wit_bindgen::generate!({
        world: "checker-agent",
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
        export_macro_name: "export_checker",
        default_bindings_module: "skep_sdk::bindings::checker_agent",
    });
}

/// The export `mailbox`.
pub mod mailbox_agent {
    wit_bindgen::generate!({
        world: "mailbox-agent",
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
        export_macro_name: "export_mailbox",
        default_bindings_module: "skep_sdk::bindings::mailbox_agent",
    });
}
