//! The record of a task as it is read, live or archived: its steps in pieces, how the children ended that they tell of, and all that its attempts
//! were given. One moment of the run is taken under the lock; what is read from tables afterwards does not change any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use skep_rules::{
    agent::{Agent, Failure},
    crew_record::{Crew, Member},
    id::{AgentId, CrewId, Digest, NodeName, TaskId},
    lifecycle::Hold,
    limits::{MAX_ARTIFACT_BYTES, MAX_COMPONENT_BYTES, MAX_EXPORTED_ARTIFACTS},
    message::Kept,
    plan::{Node, Plan},
    reason::Reason,
    rejection::Rejection,
    seam::{Call, DependencyEnd, Lease},
    state::{State, Tail},
    step::{Step, StepResult},
    task::{Task, TaskState},
};
use skep_store::Position;

use crate::{
    driver::{AGENTS, CREWS, Driver, Error, MESSAGES, TASKS, encode, piece},
    export::{Ending, Export, MASK, Piece, Writer},
    perform,
};

/// A run at one moment.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) task: Task,
    /// The steps that memory keeps.
    tail: Option<Tail>,
}

impl Run {
    /// The newest run of a task, and the position that must be durable before anybody is told.
    pub(crate) fn of(driver: &Driver, id: TaskId) -> Result<Option<(Run, Position)>, Error> {
        let (live, position) = driver.read(|state| {
            let task = state.task(id).cloned().or_else(|| state.recent(id))?;
            let tail = state.tail(id).cloned();
            Some(Run { task, tail })
        })?;
        if let Some(run) = live {
            return Ok(Some((run, position)));
        }
        let Some(task) = driver.row(TASKS, &id.to_bytes())? else {
            return Ok(None);
        };
        // It may have been archived after the state was read.
        let ((), position) = driver.read(|_| ())?;
        Ok(Some((Run { task, tail: None }, position)))
    }

    /// Steps from a number on: some of them, none only where there are no more.
    pub(crate) fn steps(&self, driver: &Driver, from: u64) -> Result<Vec<Step>, Error> {
        if from >= self.task.steps {
            return Ok(Vec::new());
        }
        let mut steps = match self.tail.as_ref().filter(|tail| tail.first <= from) {
            Some(tail) => piece(tail.first, &tail.bytes, from)?,
            None => driver.recorded(self.task.id, self.task.run, from)?,
        };
        if steps.is_empty() {
            let why = format!(
                "step {from} of {} is not on the record of {}",
                self.task.steps, self.task.id
            );
            return Err(Error::Undecodable(why));
        }
        let left = usize::try_from(self.task.steps - from).unwrap_or(usize::MAX);
        steps.truncate(left);
        Ok(steps)
    }

    /// Writes all of it to a file; with the component, and with the values of environment variables, where asked.
    pub(crate) fn export(&self, driver: &Driver, head: Export, component: bool, to: impl Write) -> Result<(), Error> {
        let failed = |error: io::Error| Error::File(error);
        let mut writer = Writer::begin(to).map_err(failed)?;
        let digest = head.component;
        writer.piece(&Piece::Head(Box::new(head))).map_err(failed)?;
        if component {
            let length = usize::try_from(MAX_COMPONENT_BYTES).unwrap_or(usize::MAX);
            // A plugin that was removed since is not in the file: whoever replays it must have it.
            match driver.store.blobs().read(perform::blob(digest), 0, length) {
                Ok(bytes) => writer.piece(&Piece::Component(bytes)).map_err(failed)?,
                Err(error) => tracing::info!(%digest, %error, "exported without its component"),
            }
        }
        let (mut children, mut artifacts) = (BTreeSet::new(), BTreeSet::new());
        let mut from = 0;
        while from < self.task.steps {
            let steps = self.steps(driver, from)?;
            from += steps.len() as u64;
            for step in &steps {
                match &step.result {
                    StepResult::Ended(ended) => children.extend(ended.iter().copied()),
                    StepResult::Artifact(digest) if step.asked.name == skep_rules::step::StepName::ReadArtifact => {
                        artifacts.insert(*digest);
                    }
                    _ => {}
                }
            }
            let bytes = steps.iter().flat_map(encode).collect();
            writer.piece(&Piece::Steps(bytes)).map_err(failed)?;
        }
        for id in children {
            let child = task(driver, id)?;
            writer.piece(&Piece::Child(child.end_as_child())).map_err(failed)?;
        }
        let mut room = MAX_EXPORTED_ARTIFACTS;
        for digest in artifacts {
            let bytes = self.artifact(driver, digest, &mut room)?;
            writer.piece(&Piece::Artifact { digest, bytes }).map_err(failed)?;
        }
        writer.piece(&Piece::Last).map_err(failed)?;
        writer.into_inner().flush().map_err(failed)
    }

    /// The bytes of an artifact that the run read, unless they are too many.
    fn artifact(&self, driver: &Driver, digest: Digest, room: &mut u64) -> Result<Option<Vec<u8>>, Error> {
        let known = perform::artifact(driver, self.task.crew, digest)?;
        let Some(known) = known.filter(|known| known.size <= *room) else {
            return Ok(None);
        };
        let length = usize::try_from(MAX_ARTIFACT_BYTES).unwrap_or(usize::MAX);
        let bytes = driver.store.blobs().read(perform::blob(digest), 0, length)?;
        *room = room.saturating_sub(known.size);
        Ok(Some(bytes))
    }

    /// What the run was given and how it ended. Refused where no attempt of the run has begun.
    pub(crate) fn head(&self, driver: &Driver, unmasked: bool) -> Result<Export, Error> {
        let task = &self.task;
        let nobody = || {
            let message = format!(
                "no attempt at {} has begun in its run {}: there is nothing to replay",
                task.id,
                task.run + 1
            );
            Error::from(Rejection::new(Reason::NotFound, message))
        };
        let begun = task.began.and(task.last_agent).ok_or_else(nobody)?;
        let (agent, member) = agent(driver, task.crew, begun)?.ok_or_else(nobody)?;
        let mut ends = Vec::with_capacity(task.dependencies.len());
        for id in &task.dependencies {
            ends.push(self::task(driver, *id)?.end());
        }
        let mut effective = member.effective;
        let mut masked = BTreeSet::new();
        if !unmasked {
            for (name, value) in &mut effective.env {
                masked.insert(name.clone());
                MASK.clone_into(value);
            }
        }
        Ok(Export {
            skep: env!("CARGO_PKG_VERSION").to_owned(),
            lease: Lease {
                task: task.id,
                epoch: task.epoch,
                agent: agent.id,
                generation: agent.generation,
            },
            run: task.run,
            agent: agent.identity(),
            plugin: member.plugin,
            version: member.version,
            component: task.pinned.unwrap_or(member.digest),
            call: match (&task.delivery, &task.draft, task.plan) {
                (None, Some(draft), _) => Call::Sequence {
                    plan: Box::new(draft.plan.clone()),
                },
                (Some(delivery), ..) => {
                    let kept = driver.row::<Kept>(MESSAGES, &delivery.message.to_bytes())?;
                    let message = Box::new(kept.ok_or_else(nobody)?.message);
                    Call::Receive { message }
                }
                (None, None, true) => Call::Plan {
                    notes: task.notes.clone(),
                },
                (None, None, false) => Call::Execute,
            },
            view: task.view(ends),
            effective,
            masked,
            steps: task.steps,
            state: task.state,
            ending: self.ending(driver)?,
        })
    }

    fn ending(&self, driver: &Driver) -> Result<Ending, Error> {
        let task = &self.task;
        if let Some(plan) = plan(driver, task)? {
            return Ok(Ending::Split(plan));
        }
        let payload = match task.state {
            TaskState::Completed => task.result.clone(),
            TaskState::Verifying | TaskState::Paused | TaskState::AwaitingApproval => task.candidate.clone(),
            _ => None,
        };
        Ok(match (payload, &task.failure) {
            (Some(payload), _) => Ending::Done(payload),
            (None, Some(failure)) if task.state == TaskState::Failed || task.hold == Some(Hold::Exhausted) => {
                match cause(failure) {
                    (Reason::Error, message) => Ending::Failed(message.to_owned()),
                    (reason, _) => Ending::stopped(reason),
                }
            }
            _ => Ending::Open,
        })
    }
}

/// Why the last attempt failed, which a dead letter says in its message.
fn cause(failure: &Failure) -> (Reason, &str) {
    let within = || {
        let (code, message) = failure.message.split_once(": ")?;
        Some((code.parse().ok()?, message))
    };
    let buried = (failure.reason == Reason::DeadLetter).then(within).flatten();
    buried.unwrap_or((failure.reason, failure.message.as_str()))
}

/// The plan that a run ended with, from the parts that were made of it; `None` where it made none. Children that it spawned have no name.
fn plan(driver: &Driver, of: &Task) -> Result<Option<Plan>, Error> {
    let mut parts = Vec::new();
    for id in of.parts() {
        let part = task(driver, *id)?;
        if part.name.is_none() {
            return Ok(None);
        }
        parts.push(part);
    }
    let names: BTreeMap<TaskId, NodeName> = parts
        .iter()
        .filter_map(|part| Some((part.id, part.name.clone()?)))
        .collect();
    let named = |id| names.get(&id).cloned();
    let nodes: Vec<Node> = parts.iter().filter_map(|part| part.node(named)).collect();
    Ok((!nodes.is_empty()).then_some(Plan {
        nodes,
        verify_before_next: false,
    }))
}

/// A task that another one names, so that it must be there.
fn task(driver: &Driver, id: TaskId) -> Result<Task, Error> {
    if let (Some(task), _) = driver.read(|state| state.task(id).cloned().or_else(|| state.recent(id)))? {
        return Ok(task);
    }
    let row = driver.row(TASKS, &id.to_bytes())?;
    row.ok_or_else(|| Error::Undecodable(format!("the task {id} is not there any more")))
}

/// How the children ended that a step tells of.
pub(crate) fn ends(driver: &Driver, step: &Step) -> Result<Vec<DependencyEnd>, Error> {
    match &step.result {
        StepResult::Ended(tasks) => tasks.iter().map(|id| Ok(task(driver, *id)?.end_as_child())).collect(),
        _ => Ok(Vec::new()),
    }
}

/// An agent and what it is, of a crew in memory or of one that was archived.
fn agent(driver: &Driver, crew: CrewId, id: AgentId) -> Result<Option<(Agent, Member)>, Error> {
    let live = |state: &State| {
        let agent = state.agent(id)?;
        Some((agent.clone(), state.member_of(agent)?.clone()))
    };
    if let (Some(found), _) = driver.read(live)? {
        return Ok(Some(found));
    }
    archived_agent(driver, crew, id)
}

/// An agent of a crew that was archived, and what it was.
pub(crate) fn archived_agent(driver: &Driver, crew: CrewId, id: AgentId) -> Result<Option<(Agent, Member)>, Error> {
    let key = [crew.to_bytes(), id.to_bytes()].concat();
    let (Some(agent), Some(crew)) = (
        driver.row::<Agent>(AGENTS, &key)?,
        driver.row::<Crew>(CREWS, &crew.to_bytes())?,
    ) else {
        return Ok(None);
    };
    let at = usize::try_from(agent.member).unwrap_or(usize::MAX);
    let member = crew.members.into_iter().nth(at);
    Ok(member.map(|member| (agent, member)))
}
