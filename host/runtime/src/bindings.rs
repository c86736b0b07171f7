//! The host's side of the contract in `wit/`: one set of bindings per world, all sharing the types and imports of the first.

/// What agents can import, and the types that everything shares.
pub(crate) mod imports {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "imports",
        imports: {
            "skep:agent/artifacts.read": async | trappable,
            "skep:agent/artifacts.[static]writer.finish": async | trappable,
            "skep:agent/tasks.await": async | trappable,
            "skep:agent/tasks.sleep-until": async | trappable,
            "skep:agent/tasks.continue": async | trappable,
            "skep:agent/messages.request": async | trappable,
            "skep:agent/tasks.ask-approval": async | trappable,
            "skep:agent/tasks.raise-blocker": async | trappable,
            default: trappable,
        },
        with: { "skep:agent/artifacts.writer": crate::caps::artifacts::Writer },
    });
}

pub(crate) use imports::skep::agent::{artifacts, context, heartbeat, log, messages, state, tasks, types};

macro_rules! agents {
    ($($name:ident $world:literal;)*) => {$(
        pub(crate) mod $name {
            wasmtime::component::bindgen!({
                path: "../../wit",
                world: $world,
                exports: { default: async },
                with: {
                    "skep:agent/types": crate::bindings::imports::skep::agent::types,
                    "skep:agent/log": crate::bindings::imports::skep::agent::log,
                    "skep:agent/heartbeat": crate::bindings::imports::skep::agent::heartbeat,
                    "skep:agent/context": crate::bindings::imports::skep::agent::context,
                    "skep:agent/artifacts": crate::bindings::imports::skep::agent::artifacts,
                    "skep:agent/state": crate::bindings::imports::skep::agent::state,
                    "skep:agent/tasks": crate::bindings::imports::skep::agent::tasks,
                    "skep:agent/messages": crate::bindings::imports::skep::agent::messages,
                },
            });
        }
    )*};
}

agents! {
    executor_agent "executor-agent";
    planner_agent "planner-agent";
    sequencer_agent "sequencer-agent";
    checker_agent "checker-agent";
    mailbox_agent "mailbox-agent";
}

pub(crate) use checker_agent::exports::skep::agent::checker;
pub(crate) use executor_agent::exports::skep::agent::executor;
pub(crate) use mailbox_agent::exports::skep::agent::mailbox;
pub(crate) use planner_agent::exports::skep::agent::planner;
pub(crate) use sequencer_agent::exports::skep::agent::sequencer;
