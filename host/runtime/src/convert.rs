//! Between the values of the contract and the values of the host. What an agent hands over is checked here into types that cannot be wrong; what
//! it gets is moved, not copied.

use std::collections::BTreeSet;

use skep_rules::{
    id::NodeName,
    lifecycle::Timeouts,
    limits::{MAX_PAYLOAD_BYTES, MAX_PLAN_NODES, MAX_TEXT_BYTES},
    plan::{Artifact, Node, NodePoint, Note, Outcome, Payload, Plan, Retry, Slot},
    priority::Priority,
    quantity::Millis,
    reason::Reason,
    retry::Policy,
    schema,
    seam::{DependencyEnd, Lease, TaskView},
};

use crate::{
    bindings::{checker, executor, types},
    caps::artifacts::is_media,
    escape::escape,
};

/// What an agent returned is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

fn bad(message: impl Into<String>) -> Error {
    Error {
        reason: Reason::InvalidInput,
        message: format!("the agent returned something unacceptable: {}", message.into()),
    }
}

/// The task as the guest sees it.
pub(crate) fn task(lease: Lease, view: TaskView) -> types::Task {
    types::Task {
        id: lease.task.to_string(),
        attempt: view.attempt,
        description: view.description,
        input: payload_in(view.input),
        dependencies: view.dependencies.into_iter().map(dependency).collect(),
        facts: view.facts,
        remarks: view.remarks,
    }
}

/// The notes of the submitter.
pub(crate) fn notes(notes: Vec<Note>) -> Vec<types::Note> {
    let note = |note: Note| types::Note {
        name: note.name,
        text: note.text,
    };
    notes.into_iter().map(note).collect()
}

/// A plan as the sequencer sees it.
pub(crate) fn plan_in(plan: Plan) -> types::Plan {
    types::Plan {
        nodes: plan.nodes.into_iter().map(node_in).collect(),
        verify_before_next: plan.verify_before_next,
    }
}

fn node_in(node: Node) -> types::Node {
    let slot = |slot: Slot| types::Slot {
        field: slot.field,
        node: slot.node.to_string(),
        schema: slot.schema.map(|schema| schema.to_string()),
    };
    types::Node {
        name: node.name.to_string(),
        description: node.description,
        roles: node.roles.iter().map(ToString::to_string).collect(),
        input: payload_in(node.input),
        dependencies: node.dependencies.iter().map(ToString::to_string).collect(),
        check: node.check,
        optional: node.optional,
        integrates: node.integrates,
        retry: retry_in(node.max_retries, node.retry),
        timeouts: types::Timeouts {
            schedule_to_start: node.timeouts.schedule_to_start.map(|time| time.0),
            start_to_close: node.timeouts.start_to_close.map(|time| time.0),
            schedule_to_close: node.timeouts.schedule_to_close.map(|time| time.0),
        },
        plan: node.plan,
        lane: node.lane.map(|lane| lane.to_string()),
        priority: node.priority.map(priority_in),
        approval: node.approval.map(|point| match point {
            NodePoint::Before => types::ApprovalPoint::Before,
            NodePoint::After => types::ApprovalPoint::After,
        }),
        note: node.note,
        output: node.output.map(|schema| schema.to_string()),
        slots: node.slots.into_iter().map(slot).collect(),
    }
}

fn retry_in(max_retries: Option<u32>, policy: Policy) -> types::RetryPolicy {
    types::RetryPolicy {
        max_retries,
        initial_delay: policy.initial.map(|delay| delay.0),
        factor_percent: policy.factor,
        max_delay: policy.cap.map(|delay| delay.0),
        jitter_percent: policy.jitter,
        non_retryable: policy.not_again.iter().map(ToString::to_string).collect(),
    }
}

/// How failures are tried again; the code that is none. Whether the rest is within its bounds is for the rules to say.
pub(crate) fn retry(retry: types::RetryPolicy) -> Result<(Option<u32>, Policy), String> {
    let code = |code: &String| code.parse::<Reason>().map_err(|_| escape(code.as_bytes(), 64));
    let policy = Policy {
        initial: retry.initial_delay.map(Millis),
        factor: retry.factor_percent,
        cap: retry.max_delay.map(Millis),
        jitter: retry.jitter_percent,
        not_again: retry.non_retryable.iter().map(code).collect::<Result<_, _>>()?,
        // What an agent makes is not kept for a person unless its submitter says so of the whole.
        on_exhausted: None,
    };
    Ok((retry.max_retries, policy))
}

pub(crate) fn timeouts(timeouts: types::Timeouts) -> Timeouts {
    Timeouts {
        schedule_to_start: timeouts.schedule_to_start.map(Millis),
        start_to_close: timeouts.start_to_close.map(Millis),
        schedule_to_close: timeouts.schedule_to_close.map(Millis),
    }
}

pub(crate) fn priority_in(priority: Priority) -> types::Priority {
    match priority {
        Priority::Low => types::Priority::Low,
        Priority::Medium => types::Priority::Medium,
        Priority::High => types::Priority::High,
        Priority::Critical => types::Priority::Critical,
    }
}

pub(crate) fn priority(priority: types::Priority) -> Priority {
    match priority {
        types::Priority::Low => Priority::Low,
        types::Priority::Medium => Priority::Medium,
        types::Priority::High => Priority::High,
        types::Priority::Critical => Priority::Critical,
    }
}

pub(crate) fn payload_in(payload: Payload) -> types::Payload {
    match payload {
        Payload::Inline(bytes) => types::Payload::Inline(bytes),
        Payload::Artifact(artifact) => types::Payload::Artifact(types::Artifact {
            digest: artifact.digest.to_string(),
            size: artifact.size,
            media: artifact.media,
        }),
    }
}

fn dependency(end: DependencyEnd) -> types::Dependency {
    let (ended, output, reason) = match end.output {
        Ok(output) => (types::Ended::Completed, Some(payload_in(output)), None),
        Err(reason) if end.skipped => (types::Ended::Skipped, None, Some(reason.to_string())),
        Err(reason) => (types::Ended::Failed, None, Some(reason.to_string())),
    };
    types::Dependency {
        name: end.name,
        ended,
        output,
        reason,
    }
}

/// What `execute` returned.
pub(crate) fn executed(returned: Result<executor::Outcome, types::Failure>) -> Result<Outcome, Error> {
    match returned {
        Ok(executor::Outcome::Done(output)) => payload(output).map(Outcome::Done),
        Ok(executor::Outcome::Decompose(split)) => plan(split).map(Outcome::Plan),
        Err(failure) => Ok(failed(failure)),
    }
}

/// What `plan` or `sequence` returned.
pub(crate) fn planned(returned: Result<types::Plan, types::Failure>) -> Result<Outcome, Error> {
    match returned {
        Ok(split) => plan(split).map(Outcome::Plan),
        Err(failure) => Ok(failed(failure)),
    }
}

/// What `check` returned.
pub(crate) fn checked(returned: Result<checker::Verdict, types::Failure>) -> Outcome {
    match returned {
        Ok(checker::Verdict::Accepted) => Outcome::Accepted,
        Ok(checker::Verdict::Rejected(remark)) => Outcome::Rejected(escape(remark.as_bytes(), MAX_TEXT_BYTES)),
        Err(failure) => failed(failure),
    }
}

/// What `receive` returned. Nothing is an empty answer.
pub(crate) fn received(returned: Result<Option<types::Payload>, types::Failure>) -> Result<Outcome, Error> {
    match returned {
        Ok(Some(answer)) => payload(answer).map(Outcome::Done),
        Ok(None) => Ok(Outcome::Done(Payload::Inline(Vec::new()))),
        Err(failure) => Ok(failed(failure)),
    }
}

fn failed(failure: types::Failure) -> Outcome {
    Outcome::Failed {
        message: escape(failure.message.as_bytes(), MAX_TEXT_BYTES),
        retry: match failure.retry {
            types::Retry::Never => Retry::Never,
            types::Retry::Later => Retry::Later,
            types::Retry::After(millis) => Retry::After(Millis(millis)),
        },
    }
}

/// A payload within its bounds.
pub(crate) fn payload(payload: types::Payload) -> Result<Payload, Error> {
    match payload {
        types::Payload::Inline(bytes) if bytes.len() > MAX_PAYLOAD_BYTES => Err(Error {
            reason: Reason::BodyLimit,
            message: format!(
                "the agent returned {} bytes inline; at most {MAX_PAYLOAD_BYTES} are taken, store larger ones as an artifact",
                bytes.len()
            ),
        }),
        types::Payload::Inline(bytes) => Ok(Payload::Inline(bytes)),
        types::Payload::Artifact(artifact) => {
            let digest = artifact
                .digest
                .parse()
                .map_err(|_| bad("an artifact whose digest is none"))?;
            if !is_media(&artifact.media) {
                return Err(bad("an artifact whose media type is none"));
            }
            Ok(Payload::Artifact(Artifact {
                digest,
                size: artifact.size,
                media: artifact.media,
            }))
        }
    }
}

/// The plan with names that are names; whether it hangs together is decided where plans are.
fn plan(plan: types::Plan) -> Result<Plan, Error> {
    if plan.nodes.len() > MAX_PLAN_NODES {
        return Err(bad(format!(
            "a plan of {} nodes; at most {MAX_PLAN_NODES} are taken",
            plan.nodes.len()
        )));
    }
    let verify_before_next = plan.verify_before_next;
    let nodes = plan.nodes.into_iter().map(node).collect::<Result<_, _>>()?;
    Ok(Plan {
        nodes,
        verify_before_next,
    })
}

fn node(node: types::Node) -> Result<Node, Error> {
    let named = |error: skep_rules::id::Error| bad(format!("in a plan, {error}"));
    let name: NodeName = node.name.parse().map_err(named)?;
    let roles = node
        .roles
        .iter()
        .map(|role| role.parse().map_err(named))
        .collect::<Result<BTreeSet<_>, _>>()?;
    let dependencies = node
        .dependencies
        .iter()
        .map(|name| name.parse().map_err(named))
        .collect::<Result<_, _>>()?;
    let schema = |text: Option<String>| text.map(|text| text.parse()).transpose();
    let schema = |of: &str, text| {
        let at = |error: schema::Error| bad(format!("in a plan, the {of} of `{name}`: {error}"));
        schema(text).map_err(at)
    };
    let slot = |slot: types::Slot| {
        Ok(Slot {
            schema: schema(&format!("slot `{}`", escape(slot.field.as_bytes(), 64)), slot.schema)?,
            field: slot.field,
            node: slot.node.parse().map_err(named)?,
        })
    };
    let (max_retries, retry) =
        retry(node.retry).map_err(|code| bad(format!("in a plan, of `{name}`: `{code}` is no reason code")))?;
    Ok(Node {
        retry,
        timeouts: timeouts(node.timeouts),
        output: schema("output", node.output)?,
        slots: node.slots.into_iter().map(slot).collect::<Result<_, Error>>()?,
        description: node.description,
        roles,
        input: payload(node.input)?,
        dependencies,
        check: node.check,
        optional: node.optional,
        integrates: node.integrates,
        max_retries,
        plan: node.plan,
        lane: node.lane.map(|lane| lane.parse().map_err(named)).transpose()?,
        priority: node.priority.map(priority),
        approval: node.approval.map(|point| match point {
            types::ApprovalPoint::Before => NodePoint::Before,
            types::ApprovalPoint::After => NodePoint::After,
        }),
        note: node.note,
        ..Node::named(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_node(name: &str, role: &str) -> types::Node {
        types::Node {
            name: name.into(),
            description: String::new(),
            roles: vec![role.into()],
            input: types::Payload::Inline(vec![]),
            dependencies: vec![],
            check: false,
            optional: false,
            integrates: false,
            retry: types::RetryPolicy {
                max_retries: None,
                initial_delay: None,
                factor_percent: None,
                max_delay: None,
                jitter_percent: None,
                non_retryable: vec![],
            },
            timeouts: types::Timeouts {
                schedule_to_start: None,
                start_to_close: None,
                schedule_to_close: None,
            },
            plan: false,
            lane: None,
            priority: None,
            approval: None,
            note: None,
            output: None,
            slots: vec![],
        }
    }

    #[test]
    fn what_an_agent_returns_is_checked() {
        let done = |payload| executed(Ok(executor::Outcome::Done(payload)));
        let artifact = |digest: &str, media: &str| {
            types::Payload::Artifact(types::Artifact {
                digest: digest.into(),
                size: 1,
                media: media.into(),
            })
        };
        let digest = Digest::of(b"x").to_string();
        assert!(done(artifact(&digest, "text/plain")).is_ok());
        assert_eq!(
            done(artifact("x", "text/plain")).unwrap_err().reason,
            Reason::InvalidInput
        );
        assert_eq!(done(artifact(&digest, "")).unwrap_err().reason, Reason::InvalidInput);
        let large = types::Payload::Inline(vec![0; MAX_PAYLOAD_BYTES + 1]);
        assert_eq!(done(large).unwrap_err().reason, Reason::BodyLimit);

        let split = |nodes| {
            planned(Ok(types::Plan {
                nodes,
                verify_before_next: false,
            }))
        };
        assert!(split(vec![a_node("one", "worker")]).is_ok());
        assert!(split(vec![a_node("no such name!", "worker")]).is_err());
        assert!(split(vec![a_node("one", "WORKER!")]).is_err());
        assert!(split(vec![a_node("one", "worker"); MAX_PLAN_NODES + 1]).is_err());
        let mut typed = a_node("one", "worker");
        typed.output = Some("{\"pattern\":\"x\"}".into());
        let error = split(vec![typed]).unwrap_err();
        assert!(
            error
                .message
                .contains("the output of `one`: `pattern` is not understood"),
            "{error}"
        );
    }

    #[test]
    fn a_plan_goes_to_the_sequencer_and_comes_back_the_same() {
        let mut node = a_node("one", "worker");
        node.lane = Some("slow".into());
        node.priority = Some(types::Priority::High);
        node.approval = Some(types::ApprovalPoint::After);
        node.note = Some("a.md".into());
        node.output = Some("{\"type\":\"string\"}".into());
        let mut second = a_node("two", "worker");
        second.plan = true;
        second.slots = vec![types::Slot {
            field: "text".into(),
            node: "one".into(),
            schema: Some("{\"type\":\"string\"}".into()),
        }];
        let given = plan(types::Plan {
            nodes: vec![node, second],
            verify_before_next: true,
        });
        let given = given.unwrap();
        assert_eq!(plan(plan_in(given.clone())), Ok(given));
    }

    #[test]
    fn a_failure_is_cut_and_made_safe_to_show() {
        let failure = types::Failure {
            message: "\u{1b}[2J".repeat(10_000),
            retry: types::Retry::After(5),
        };
        let Ok(Outcome::Failed { message, retry }) = executed(Err(failure)) else {
            panic!("a failure is an outcome")
        };
        assert!(message.len() <= MAX_TEXT_BYTES && !message.contains('\u{1b}'));
        assert_eq!(retry, Retry::After(Millis(5)));
    }

    use skep_rules::id::Digest;
}
