//! The export `planner`: split objectives.

use crate::{Node, Payload, Plan, RetryPolicy, Timeouts};

impl Node {
    /// A node that any agent with `role` may execute: waits for nothing, unchecked, required, with the host's retry limit.
    ///
    /// Change what differs with a struct literal: `Node { check: true, ..Node::new("scan/1", "Scan batch 1", "scanner", input) }`.
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        role: impl Into<String>,
        input: Payload,
    ) -> Node {
        Node {
            name: name.into(),
            description: description.into(),
            roles: vec![role.into()],
            input,
            dependencies: Vec::new(),
            check: false,
            optional: false,
            integrates: false,
            retry: RetryPolicy::default(),
            timeouts: Timeouts::default(),
            plan: false,
            lane: None,
            priority: None,
            approval: None,
            note: None,
            output: None,
            slots: Vec::new(),
        }
    }
}

impl Plan {
    /// A plan of these nodes.
    pub fn new(nodes: Vec<Node>) -> Plan {
        Plan {
            nodes,
            verify_before_next: false,
        }
    }
}

/// Export a type that implements [`Planner`](crate::Planner) as the component's planner. Once per component.
#[macro_export]
macro_rules! planner {
    ($agent:ident) => {
        // The exported names are no valid symbols for a native linker.
        #[cfg(target_family = "wasm")]
        $crate::bindings::planner_agent::export_planner!($agent with_types_in $crate::bindings::planner_agent);
        #[cfg(not(target_family = "wasm"))]
        const _: fn(
            $crate::Task,
            ::std::vec::Vec<$crate::Note>,
        ) -> ::core::result::Result<$crate::Plan, $crate::Failure> = <$agent as $crate::Planner>::plan;
    };
}
