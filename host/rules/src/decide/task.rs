//! Tasks submitted by people, and trees that are cancelled.

use std::collections::{BTreeMap, BTreeSet};

use super::{Decision, Reply, approval};
use crate::{
    agent::Failure,
    command::{Idempotency, NewTask},
    crew_record::{Crew, CrewPhase},
    event::Change,
    facts::{Facts, Remembered, Table, Write},
    id::{AgentId, CrewId, TaskId},
    index::Need,
    lifecycle::{OnFailure, Timeouts},
    limits::{
        DEFAULT_RETRIES, IDEMPOTENCY, MAX_DECISION_BYTES, MAX_DEPENDENCIES, MAX_IDEMPOTENCY_KEY_BYTES, MAX_LABELS,
        MAX_LIVE_TASKS, MAX_PAYLOAD_BYTES, MAX_PLAN_NODES, MAX_RETRIES, MAX_ROLES, MAX_SUBMISSION, MAX_TEXT_BYTES,
    },
    plan::{Note, Payload, Plan},
    priority::Priority,
    quantity::{Fuel, Size},
    reason::Reason,
    rejection::Rejection,
    retry::{OnExhausted, Policy},
    seam::{Export, RunnerCommand},
    state::encode,
    task::{Draft, Task, TaskState},
};

impl Decision<'_> {
    pub(super) fn submit(
        &mut self,
        facts: &Facts,
        crew: CrewId,
        tasks: Vec<NewTask>,
        idempotency: Option<Idempotency>,
    ) -> Result<Reply, Rejection> {
        if let Some(given) = &idempotency {
            if tasks.iter().any(|task| task.ephemeral) {
                let message = "an idempotency key is remembered longer than an ephemeral task lives; submit it without a key, or durably";
                return Err(Rejection::invalid(message));
            }
            if given.key.is_empty() || given.key.len() > MAX_IDEMPOTENCY_KEY_BYTES {
                let message = format!("an idempotency key has 1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes");
                return Err(Rejection::invalid(message));
            }
            match &facts.idempotency {
                Some(known) if known.until > self.now && known.digest == given.digest => {
                    return Ok(Reply::Submitted {
                        tasks: known.tasks.clone(),
                        repeated: true,
                    });
                }
                Some(known) if known.until > self.now => {
                    let message = format!("the idempotency key `{}` was used with another request", given.key);
                    return Err(Rejection::new(Reason::IdempotencyMismatch, message));
                }
                _ => {}
            }
        }
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        let records = self.records(facts, crew, tasks)?;
        for record in records {
            self.accept(record);
        }
        if let Some(given) = idempotency {
            let remembered = Remembered {
                digest: given.digest,
                tasks: ids.clone(),
                until: self.now.after(IDEMPOTENCY),
                message: None,
            };
            self.writes.push(Write {
                table: Table::Idempotency,
                key: given.key.into_bytes(),
                value: Some(encode(&remembered)),
            });
        }
        Ok(Reply::Submitted {
            tasks: ids,
            repeated: false,
        })
    }

    /// The records that a submission makes, every rule checked.
    pub(super) fn records(&self, facts: &Facts, id: CrewId, tasks: Vec<NewTask>) -> Result<Vec<Task>, Rejection> {
        let crew = self.state.crew(id).ok_or_else(|| Rejection::not_found(id))?;
        if crew.phase != CrewPhase::Live {
            return Err(Rejection::illegal(
                format!(
                    "the crew `{}` takes no new tasks: it is {:?}",
                    crew.manifest.name, crew.phase
                )
                .to_lowercase(),
                &[],
            ));
        }
        if tasks.is_empty() || tasks.len() > MAX_SUBMISSION {
            return Err(Rejection::invalid(format!(
                "a submission has 1 to {MAX_SUBMISSION} tasks"
            )));
        }
        if self.state.live_tasks() + tasks.len() > MAX_LIVE_TASKS {
            let message = format!("the host holds {MAX_LIVE_TASKS} live tasks already");
            return Err(Rejection::new(Reason::Overloaded, message));
        }
        let mut new = BTreeMap::new();
        let mut records = Vec::with_capacity(tasks.len());
        let mut bytes = 0;
        for (task, index) in tasks.into_iter().zip(0_u64..) {
            let at = |what: &str| format!("tasks[{index}]: {what}");
            bounds(&task).map_err(|what| Rejection::invalid(at(&what)))?;
            if self.state.task(task.id).is_some() || new.insert(task.id, task.ephemeral).is_some() {
                return Err(Rejection::invalid(at("its id is taken")));
            }
            let record = self
                .record(facts, crew, task, index, &new)
                .map_err(|rejection| Rejection {
                    message: at(&rejection.message),
                    ..rejection
                })?;
            bytes += encode(&record).len();
            records.push(record);
        }
        if bytes > MAX_DECISION_BYTES {
            let message = format!(
                "the submission has {bytes} bytes, at most {MAX_DECISION_BYTES}; put large inputs in artifacts"
            );
            return Err(Rejection::new(Reason::BodyLimit, message));
        }
        Ok(records)
    }

    pub(super) fn record(
        &self,
        facts: &Facts,
        crew: &Crew,
        new: NewTask,
        index: u64,
        earlier: &BTreeMap<TaskId, bool>,
    ) -> Result<Task, Rejection> {
        let agent = new
            .agent
            .as_deref()
            .map(|named| self.find_agent(crew.id, named))
            .transpose()?;
        let (mut dependencies, mut settled) = (BTreeSet::new(), Vec::new());
        for id in new.dependencies {
            let here = |task: &&Task| task.crew == crew.id;
            let live = self.state.task(id).filter(here).map(|task| task.ephemeral);
            let live = live.or_else(|| earlier.get(&id).copied());
            let recent = self.state.recent(id).filter(|task| here(&task));
            if id == new.id {
                return Err(Rejection::invalid("it depends on itself"));
            } else if !new.ephemeral && (live == Some(true) || recent.is_some()) {
                return Err(Rejection::invalid(format!(
                    "it depends on {id}, which is ephemeral, and would wait for ever once that is lost; make both ephemeral or neither"
                )));
            } else if live.is_some() {
                dependencies.insert(id);
            } else if let Some(ended) = facts.tasks.get(&id).filter(here).or(recent.as_ref()) {
                settled.push(ended.end());
            } else {
                return Err(Rejection::not_found(format!(
                    "{id} in the crew, on which it could depend"
                )));
            }
        }
        let inline: usize = settled
            .iter()
            .filter_map(|end| end.output.as_ref().ok())
            .map(|payload| encode(payload).len())
            .sum();
        if inline > MAX_PAYLOAD_BYTES {
            let message =
                "the outputs that it depends on are together larger than 256 KiB; have them stored as artifacts";
            return Err(Rejection::invalid(message));
        }
        let task = Task {
            agent,
            plan: new.plan,
            notes: new.notes,
            max_retries: new.max_retries.unwrap_or(DEFAULT_RETRIES),
            retry: new.retry,
            priority: new.priority,
            timeouts: new.timeouts,
            on_failure: new.on_failure,
            settled,
            labels: new.labels,
            dependencies: dependencies.into_iter().collect(),
            description: new.description,
            input: new.input,
            roles: new.roles,
            check: new.check,
            ephemeral: new.ephemeral,
            points: new.approval,
            draft: new.parts.map(|plan| Box::new(Draft { plan, given: true })),
            budget: new.budget,
            seed: new.seed,
            order: self.state.next_order() + index,
            created: self.now,
            by: self.actor.clone().unwrap_or_default(),
            ..blank(new.id, crew.id)
        };
        self.servable(&task)?;
        let task = self.guarded(task);
        let points = task.points.as_ref();
        points
            .map_or(Ok(()), |points| approval::points(points, task.ephemeral))
            .map_err(Rejection::invalid)?;
        Ok(placed(task))
    }

    fn find_agent(&self, crew: CrewId, named: &str) -> Result<AgentId, Rejection> {
        let found = match named.parse::<AgentId>() {
            Ok(id) => self.state.agent(id).filter(|agent| agent.crew == crew),
            Err(_) => self.state.agents_of(crew).find(|agent| agent.name == named),
        };
        found
            .map(|agent| agent.id)
            .ok_or_else(|| Rejection::not_found(format!("agent `{named}` in the crew")))
    }

    /// Refuses a task that nobody in the crew can ever take, or whose result nobody could check.
    pub(super) fn servable(&self, task: &Task) -> Result<(), Rejection> {
        match &task.draft {
            Some(draft) => self.can_all_serve(task, &draft.plan)?,
            None => self
                .can_serve(task.crew, &Need::of(task))
                .map_err(|why| Rejection::new(Reason::NotFound, why))?,
        }
        if task.check {
            // Who will have made the result is not known yet: `Need::check` keeps one checker free of it.
            let check = Need::any(Export::Checker);
            self.can_serve(task.crew, &check)
                .map_err(|why| Rejection::new(Reason::NotFound, why))?;
        }
        Ok(())
    }

    /// Refuses a plan of which a node has nobody that could take it.
    fn can_all_serve(&self, task: &Task, plan: &Plan) -> Result<(), Rejection> {
        for node in &plan.nodes {
            if task.ephemeral && node.approval.is_some() {
                let message = format!(
                    "`{}`: an approval outlives the host, and an ephemeral task does not",
                    node.name
                );
                return Err(Rejection::invalid(message));
            }
            let like = Task {
                roles: node.roles.clone(),
                plan: node.plan,
                check: node.check || plan.verify_before_next && node.parts.is_none(),
                draft: node.parts.clone().map(|plan| Box::new(Draft { plan, given: true })),
                ephemeral: task.ephemeral,
                ..blank(task.id, task.crew)
            };
            self.servable(&like).map_err(|rejection| Rejection {
                message: format!("`{}`: {}", node.name, rejection.message),
                ..rejection
            })?;
        }
        Ok(())
    }

    /// A task wherever it is: live, in the archive, or ended and ephemeral.
    pub(super) fn known(&self, facts: &Facts, id: TaskId) -> Result<Task, Rejection> {
        let known = self.state.task(id).or_else(|| facts.tasks.get(&id)).cloned();
        let known = known.or_else(|| self.state.recent(id));
        known.ok_or_else(|| Rejection::not_found(id))
    }

    /// Ends a task and everything beneath it, parents first; what runs is told to stop.
    pub(super) fn cancel_tree(&mut self, top: TaskId, why: &str) {
        let live = |task: &&&Task| !task.state.is_ended();
        let tree: Vec<_> = self
            .state
            .tree(top)
            .iter()
            .filter(live)
            .map(|task| (task.id, task.held.clone()))
            .collect();
        for (id, held) in tree {
            self.move_task(id, Change::Cancelled(Failure::new(Reason::Cancelled, why)));
            if let Some(held) = held {
                self.run(RunnerCommand::Cancel { lease: held.lease });
            }
        }
    }
}

/// A task of which only the ids are known.
pub(crate) fn blank(id: TaskId, crew: CrewId) -> Task {
    Task {
        id,
        crew,
        parent: None,
        root: id,
        name: None,
        depth: 1,
        description: String::new(),
        input: Payload::Inline(Vec::new()),
        roles: BTreeSet::new(),
        agent: None,
        plan: false,
        notes: Vec::new(),
        check: false,
        optional: false,
        integrates: false,
        max_retries: 0,
        dependencies: Vec::new(),
        settled: Vec::new(),
        children: Vec::new(),
        labels: BTreeMap::new(),
        seed: 0,
        order: 0,
        created: crate::quantity::Time(0),
        state: TaskState::Pending,
        revision: 1,
        attempts: 0,
        retries: 0,
        faults: 0,
        epoch: 0,
        held: None,
        remarks: Vec::new(),
        candidate: None,
        executed_by: None,
        result: None,
        failure: None,
        not_before: None,
        started: None,
        ended: None,
        fuel: Fuel(0),
        peak_memory: Size(0),
        denials: Vec::new(),
        by: String::new(),
        nodes: 0,
        planned_from: 0,
        last_agent: None,
        ephemeral: false,
        run: 0,
        steps: 0,
        record_bytes: 0,
        stepped: None,
        pinned: None,
        began: None,
        facts: None,
        wait: None,
        retry: Policy::default(),
        priority: Priority::default(),
        timeouts: Timeouts::default(),
        queued: None,
        history: Vec::new(),
        on_failure: OnFailure::default(),
        redrives: None,
        hold: None,
        delivery: None,
        points: None,
        asks: None,
        always: Vec::new(),
        part: None,
        draft: None,
        budget: None,
    }
}

/// READY where there is nothing to wait for, a person included. A dependency that failed before the task came is found by what follows the decision.
pub(super) fn placed(task: Task) -> Task {
    let failed = task.settled.iter().any(|end| end.output.is_err());
    let asks = task.points.is_some_and(|points| points.before.is_some());
    match task.dependencies.is_empty() && !failed && !asks {
        true => Task {
            state: TaskState::Ready,
            queued: Some(task.created),
            ..task
        },
        false => task,
    }
}

/// The bounds of a submitted task.
fn bounds(task: &NewTask) -> Result<(), String> {
    let long = |text: &String| text.len() > MAX_TEXT_BYTES;
    if long(&task.description) {
        Err(format!("the description holds at most {MAX_TEXT_BYTES} bytes"))
    } else if !task.input.fits() {
        Err(format!(
            "the input is larger than {MAX_PAYLOAD_BYTES} bytes; store it as an artifact"
        ))
    } else if task.roles.len() > MAX_ROLES {
        Err(format!("at most {MAX_ROLES} roles"))
    } else if !task.notes.is_empty() && !task.plan && task.parts.is_none() {
        Err("notes are for a planner, and the task asks for none".to_owned())
    } else if task.plan && task.parts.is_some() {
        Err("it is split already, and has no need of a planner".to_owned())
    } else if task.budget == Some(Fuel(0)) {
        Err("a budget of no fuel at all".to_owned())
    } else if task.labels.len() > MAX_LABELS
        || task
            .labels
            .iter()
            .any(|(key, value)| key.len() > 64 || value.len() > 256)
    {
        Err(format!(
            "at most {MAX_LABELS} labels, keys of 64 bytes and values of 256"
        ))
    } else if task.dependencies.len() > MAX_DEPENDENCIES {
        Err(format!("at most {MAX_DEPENDENCIES} dependencies"))
    } else if task.max_retries.is_some_and(|retries| retries > MAX_RETRIES) {
        Err(format!("at most {MAX_RETRIES} retries"))
    } else if task.ephemeral && task.retry.on_exhausted == Some(OnExhausted::DeadLetter) {
        Err("an ephemeral task is lost with the host and cannot be kept as a dead letter".to_owned())
    } else {
        Note::check(&task.notes)?;
        task.retry.check()?;
        task.timeouts.check()?;
        if let Some(plan) = &task.parts {
            plan.check().map_err(|error| error.to_string())?;
            if plan.size() > MAX_PLAN_NODES {
                return Err(format!(
                    "one objective has at most {MAX_PLAN_NODES} tasks beneath it, this has {}",
                    plan.size()
                ));
            }
        }
        Ok(())
    }
}
