//! Plans: how a submitter says that a task is split, and how the tree of a task is told again, so that it can be submitted anew.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skep_rules::{
    id::{Digest, NodeName, Role},
    plan::{self, NodePoint},
    priority::Priority,
    schema::Schema,
};
use utoipa::ToSchema;

use super::task::{NewTask, RetryPolicy, Timeouts};

/// What the planner is told: a text, or a text with a name by which tasks refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Note {
    /// With the name `note-1`, `note-2` and so on, by its place.
    Text(String),
    /// With a name.
    Named(NamedNote),
}

/// A note and its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedNote {
    /// Of its own, 1 to 256 bytes.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// The notes as the rules have them, each with a name.
#[must_use]
pub fn notes(notes: Vec<Note>) -> Vec<plan::Note> {
    let named = |(note, at): (Note, usize)| match note {
        Note::Text(text) => plan::Note {
            name: format!("note-{at}"),
            text,
        },
        Note::Named(NamedNote { name, text }) => plan::Note { name, text },
    };
    notes.into_iter().zip(1..).map(named).collect()
}

/// A field of a node's input that is the output of another node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The field. The rest of the input is an object, or nothing.
    pub field: String,
    /// Whose output it is; the node waits for it.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// What the output must be, which that node must promise as its `output`: a JSON Schema of `type`, `properties`, `required`, `additionalProperties`,
    /// `items`, `enum` and `const`. Anything when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Schema>,
}

/// A part of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// Unique in its plan: 1 to 64 of `a-z 0-9 - _ . /`.
    pub name: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Any agent of the crew with one of these roles may execute it; at least one, unless it has `nodes`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub roles: BTreeSet<Role>,
    /// What to work on, in the form of a task's `input`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub input: Value,
    /// Nodes whose ends it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dependencies: Vec<NodeName>,
    /// Whether a checker looks at the result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check: bool,
    /// Whether its failure stops nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Whether its output is that of the whole; at most one node's is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub integrates: bool,
    /// How failures are tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// How long it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// Whether a planner splits it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plan: bool,
    /// Nodes of one lane run one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub lane: Option<NodeName>,
    /// How urgent it is; as what it is a part of when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub priority: Option<Priority>,
    /// Where a person has to approve it: `before` or `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub approval: Option<NodePoint>,
    /// The name of the note that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What its output will be: a JSON Schema as in a slot. An output that is something else is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub output: Option<Schema>,
    /// Fields of its input that are outputs of others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
    /// Its own parts, where they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub nodes: Vec<Node>,
}

/// The tree of a task as it can be submitted again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// SHA-256 of `task` in its shortest form. A task that was submitted from this gives the same.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// What `POST /v1/tasks` takes.
    pub task: NewTask,
}

impl Export {
    /// With its digest.
    #[must_use]
    pub fn of(task: NewTask) -> Self {
        let digest = Export::digest_of(&task);
        Export { digest, task }
    }

    /// Whether the digest is that of the task.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        Export::digest_of(&self.task) == self.digest
    }

    fn digest_of(task: &NewTask) -> Digest {
        // A value keeps its keys sorted, so the order in a file does not matter.
        let value = serde_json::to_value(task).expect("a task is JSON");
        Digest::of(value.to_string().as_bytes())
    }
}
