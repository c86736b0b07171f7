//! `skep:agent/tasks`: an agent gives work to its crew, waits for it, for time, and for people. Granted by `tasks` with a number of children, which is kept where
//! tasks are. Refused: texts, lists and times over their bounds, before a step is taken; everything once the grant was taken back, and to attempts
//! without a record. An attempt that waits holds no lease: see [`Steps::wait`](crate::steps::Steps::wait).

use std::collections::BTreeSet;

use skep_rules::{
    approval::{self, Terms},
    capability::Capability,
    id::{Role, TaskId},
    limits::{
        MAX_APPROVAL_BYTES, MAX_APPROVAL_ITEMS, MAX_AWAIT, MAX_AWAITED, MAX_RETRIES, MAX_ROLES, MAX_SLEEP,
        MAX_TEXT_BYTES,
    },
    plan::Payload,
    quantity::{Millis, Time},
    reason::Reason,
    seam::DependencyEnd,
    step::{self, Decided, StepCall, StepResult},
};
use wasmtime::component::{HasSelf, Linker};

use super::stepped::Stepped;
use crate::{
    bindings::{
        tasks::{self, Child, Decision, End, Ended, Error, Mode, OnTimeout, Request},
        types,
    },
    convert,
    ctx::Ctx,
    steps::{Answer, Continued},
};

/// Links the interface.
///
/// # Errors
/// When the linker holds it already.
pub(super) fn link(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    use tasks::Host;
    tasks::add_to_linker::<Ctx, HasSelf<Ctx>>(linker, |ctx| ctx)?;
    let mut stepped = Stepped::new(linker, "skep:agent/tasks@0.1.0", |ctx| &mut ctx.base);
    stepped.plain("spawn", |ctx, (child,)| Ok((Host::spawn(ctx, child)?,)))?;
    stepped.waiting("await", |ctx, (tasks, mode, timeout)| {
        Box::pin(async move { Ok((Host::await_(ctx, tasks, mode, timeout).await?,)) })
    })?;
    stepped.waiting("sleep-until", |ctx, (time,)| {
        Box::pin(async move { Ok((Host::sleep_until(ctx, time).await?,)) })
    })?;
    stepped.waiting("ask-approval", |ctx, (request,)| {
        Box::pin(async move { Ok((Host::ask_approval(ctx, request).await?,)) })
    })?;
    stepped.waiting("raise-blocker", |ctx, (question, expires)| {
        Box::pin(async move { Ok((Host::raise_blocker(ctx, question, expires).await?,)) })
    })
}

impl tasks::Host for Ctx {
    fn spawn(&mut self, child: Child) -> wasmtime::Result<Result<String, Error>> {
        let bytes = child.description.len().saturating_add(size(&child.input));
        if !self.step(Capability::Tasks, bytes, "tasks.spawn")? {
            return Ok(Err(Error::Denied));
        }
        let Some(child) = checked(child) else {
            return Ok(Err(Error::InvalidInput));
        };
        match self.base.steps.take(StepCall::Spawn(child))? {
            Answer::Given(StepResult::Spawned(task), _) => Ok(Ok(task.to_string())),
            other => self.refused(other, "tasks.spawn"),
        }
    }

    async fn await_(
        &mut self,
        tasks: Vec<String>,
        mode: Mode,
        timeout: Option<u64>,
    ) -> wasmtime::Result<Result<Vec<Ended>, Error>> {
        let bytes = tasks.iter().map(String::len).sum();
        if !self.step(Capability::Tasks, bytes, "tasks.await")? {
            return Ok(Err(Error::Denied));
        }
        let own = self.control.lease().task;
        let known = |text: &String| text.parse::<TaskId>().ok().filter(|task| *task != own);
        let named = match (1..=MAX_AWAITED).contains(&tasks.len()) {
            true => tasks.iter().map(known).collect::<Option<Vec<_>>>(),
            false => None,
        };
        let timeout = timeout.map(Millis);
        let Some(tasks) = named.filter(|_| timeout.is_none_or(|timeout| timeout <= MAX_AWAIT)) else {
            return Ok(Err(Error::InvalidInput));
        };
        let all = match mode {
            Mode::Any => false,
            Mode::All => true,
        };
        match self.wait(StepCall::Await { tasks, all, timeout }).await? {
            Answer::Given(StepResult::Ended(_), ends) => Ok(Ok(ends.into_iter().map(ended).collect())),
            other => self.refused(other, "tasks.await"),
        }
    }

    async fn sleep_until(&mut self, time: u64) -> wasmtime::Result<Result<(), Error>> {
        if !self.step(Capability::Tasks, 0, "tasks.sleep-until")? {
            return Ok(Err(Error::Denied));
        }
        let until = Time(time);
        if self
            .base
            .steps
            .clock()
            .is_some_and(|(_, now)| until > now.after(MAX_SLEEP))
        {
            return Ok(Err(Error::InvalidInput));
        }
        match self.wait(StepCall::Sleep { until }).await? {
            Answer::Given(StepResult::Done, _) => Ok(Ok(())),
            other => self.refused(other, "tasks.sleep-until"),
        }
    }

    async fn ask_approval(&mut self, request: Request) -> wasmtime::Result<Result<Vec<Decision>, Error>> {
        let texts = request.items.iter().map(|item| item.name.len() + item.arguments.len());
        let bytes = request.action.len() + request.question.len() + texts.sum::<usize>();
        if !self.step(Capability::Tasks, bytes, "tasks.ask-approval")? {
            return Ok(Err(Error::Denied));
        }
        let Some(request) = asked(request) else {
            return Ok(Err(Error::InvalidInput));
        };
        let names: Vec<String> = request.items.iter().map(|item| item.name.clone()).collect();
        match self.wait(StepCall::AskApproval(request)).await? {
            Answer::Given(StepResult::Decided(decided), _) if decided.len() == names.len() => {
                Ok(Ok(names.into_iter().zip(decided).map(decision).collect()))
            }
            other => self.refused(other, "tasks.ask-approval"),
        }
    }

    async fn raise_blocker(
        &mut self,
        question: String,
        expires: Option<u64>,
    ) -> wasmtime::Result<Result<tasks::Answer, Error>> {
        if !self.step(Capability::Tasks, question.len(), "tasks.raise-blocker")? {
            return Ok(Err(Error::Denied));
        }
        let terms = terms(expires, OnTimeout::Reject);
        if !terms.fit() || !(1..=MAX_TEXT_BYTES).contains(&question.len()) {
            return Ok(Err(Error::InvalidInput));
        }
        let expires = terms.expires;
        match self.wait(StepCall::RaiseBlocker { question, expires }).await? {
            Answer::Given(StepResult::Decided(mut decided), _) if decided.len() == 1 => Ok(Ok(decided
                .pop()
                .map_or_else(|| tasks::Answer::Declined(String::new()), answer))),
            other => self.refused(other, "tasks.raise-blocker"),
        }
    }

    async fn continue_(&mut self, input: types::Payload) -> wasmtime::Result<Error> {
        if !self.step(Capability::Tasks, size(&input), "tasks.continue")? {
            return Ok(Error::Denied);
        }
        match convert::payload(input) {
            Ok(input) => Err(Continued(input).into()),
            Err(_) => Ok(Error::InvalidInput),
        }
    }
}

impl Ctx {
    /// What the guest is told of an answer that is no result.
    fn refused<T>(&self, answer: Answer, what: &str) -> wasmtime::Result<Result<T, Error>> {
        let reason = match answer {
            Answer::Refused(reason) | Answer::Given(StepResult::Refused { reason, .. }, _) => reason,
            unfit @ Answer::Given(..) => return Err(unfit.unfit().into()),
        };
        if matches!(reason, Reason::CapabilityDenied | Reason::BudgetExhausted) {
            self.base.denials.note(reason, what);
        }
        Ok(Err(error(reason)))
    }
}

fn size(payload: &types::Payload) -> usize {
    match payload {
        types::Payload::Inline(bytes) => bytes.len(),
        types::Payload::Artifact(_) => 0,
    }
}

/// The child within its bounds; `None` when it passes one.
fn checked(child: Child) -> Option<step::Child> {
    let Child {
        description,
        input,
        roles,
        check,
        retry,
        timeouts,
        priority,
    } = child;
    let (max_retries, retry) = convert::retry(retry).ok()?;
    let timeouts = convert::timeouts(timeouts);
    let bounded = description.len() <= MAX_TEXT_BYTES
        && roles.len() <= MAX_ROLES
        && max_retries.is_none_or(|retries| retries <= MAX_RETRIES)
        && retry.check().is_ok()
        && timeouts.check().is_ok();
    let input: Payload = convert::payload(input).ok().filter(|_| bounded)?;
    let role = |role: &String| role.parse::<Role>().ok();
    Some(step::Child {
        description,
        input,
        roles: roles.iter().map(role).collect::<Option<BTreeSet<_>>>()?,
        check,
        max_retries,
        retry,
        timeouts,
        priority: priority.map(convert::priority),
    })
}

/// The question within its bounds, its arguments in canonical form; `None` when it passes one.
fn asked(request: Request) -> Option<approval::Request> {
    let Request {
        action,
        question,
        items,
        expires_in,
        on_timeout,
    } = request;
    // Before anything is read of it: what is no question is not parsed.
    if items.len() > MAX_APPROVAL_ITEMS || items.iter().any(|item| item.arguments.len() > MAX_APPROVAL_BYTES) {
        return None;
    }
    let items = items.into_iter();
    let request = approval::Request {
        action,
        question,
        items: items
            .map(|item| approval::Item::new(item.name, item.arguments))
            .collect(),
        terms: terms(expires_in, on_timeout),
    };
    request.fits().then_some(request)
}

fn terms(expires: Option<u64>, on_timeout: OnTimeout) -> Terms {
    Terms {
        expires: expires.map(Millis),
        on_timeout: match on_timeout {
            OnTimeout::Reject => approval::OnTimeout::Reject,
            OnTimeout::Escalate => approval::OnTimeout::Escalate,
        },
    }
}

fn decision((item, decided): (String, Decided)) -> Decision {
    Decision {
        item,
        approved: decided.approved,
        remark: decided.remark,
    }
}

fn answer(decided: Decided) -> tasks::Answer {
    match decided.approved {
        true => tasks::Answer::Answered(decided.remark),
        false => tasks::Answer::Declined(decided.remark),
    }
}

fn ended(end: DependencyEnd) -> Ended {
    Ended {
        task: end.name,
        end: match end.output {
            Ok(output) => End::Completed(convert::payload_in(output)),
            Err(_) if end.skipped => End::Cancelled,
            Err(reason) => End::Failed(reason.to_string()),
        },
    }
}

/// What a guest is told of a refusal; it never learns of troubles of the host.
fn error(reason: Reason) -> Error {
    match reason {
        Reason::NotFound => Error::NotFound,
        Reason::InvalidInput => Error::InvalidInput,
        Reason::BudgetExhausted => Error::BudgetExceeded,
        Reason::CapabilityDenied => Error::Denied,
        Reason::RecordFull => Error::RecordFull,
        _ => Error::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(change: impl FnOnce(&mut Child)) -> Option<step::Child> {
        let mut child = Child {
            description: "d".repeat(MAX_TEXT_BYTES),
            input: types::Payload::Inline(vec![1]),
            roles: vec!["worker".into(); MAX_ROLES],
            check: true,
            retry: types::RetryPolicy {
                max_retries: Some(MAX_RETRIES),
                initial_delay: Some(1),
                factor_percent: Some(100),
                max_delay: None,
                jitter_percent: Some(0),
                non_retryable: vec!["trapped".into()],
            },
            timeouts: types::Timeouts {
                schedule_to_start: None,
                start_to_close: Some(1),
                schedule_to_close: None,
            },
            priority: None,
        };
        change(&mut child);
        checked(child)
    }

    #[test]
    fn a_child_has_its_bounds() {
        let whole = child(|_| {}).unwrap();
        assert_eq!((whole.roles.len(), whole.max_retries), (1, Some(MAX_RETRIES)));
        assert!(child(|child| child.description.push('d')).is_none());
        assert!(child(|child| child.roles.push("other".into())).is_none());
        assert!(child(|child| child.roles = vec!["NO!".into()]).is_none());
        assert!(child(|child| child.retry.max_retries = Some(MAX_RETRIES + 1)).is_none());
        assert!(child(|child| child.retry.initial_delay = Some(0)).is_none());
        assert!(child(|child| child.retry.factor_percent = Some(99)).is_none());
        assert!(child(|child| child.retry.non_retryable = vec!["tired".into()]).is_none());
        assert!(child(|child| child.timeouts.schedule_to_close = Some(0)).is_none());
        let large = vec![0; skep_rules::limits::MAX_PAYLOAD_BYTES + 1];
        assert!(child(|child| child.input = types::Payload::Inline(large)).is_none());
    }

    #[test]
    fn a_question_has_its_bounds_and_its_arguments_a_canonical_form() {
        let item = |name: &str, arguments: &str| tasks::Item {
            name: name.into(),
            arguments: arguments.into(),
        };
        let question = |items| {
            asked(Request {
                action: "deploy".into(),
                question: "why".into(),
                items,
                expires_in: Some(60_000),
                on_timeout: OnTimeout::Escalate,
            })
        };
        let whole = question(vec![item("a", "{ \"b\": 1, \"a\": 2 }"), item("b", "{")]).unwrap();
        let items: Vec<_> = whole
            .items
            .iter()
            .map(|item| (item.arguments.as_str(), item.parsed))
            .collect();
        assert_eq!(items, [(r#"{"a":2,"b":1}"#, true), ("{", false)]);
        assert_eq!(whole.terms.on_timeout, approval::OnTimeout::Escalate);
        assert!(question(vec![]).is_none());
        assert!(question(vec![item("a", ""); 2]).is_none());
        assert!(question(vec![item("a", &"1".repeat(MAX_APPROVAL_BYTES + 1))]).is_none());
        assert!(question(vec![item("a", "1"); MAX_APPROVAL_ITEMS + 1]).is_none());
    }

    #[test]
    fn an_end_says_how_it_ended() {
        let end = |output, skipped| {
            let name = "task".to_owned();
            ended(DependencyEnd { name, output, skipped }).end
        };
        assert!(matches!(end(Err(Reason::Trapped), false), End::Failed(code) if code == "trapped"));
        assert!(matches!(end(Err(Reason::Cancelled), true), End::Cancelled));
        let output = Ok(Payload::Inline(vec![7]));
        assert!(matches!(end(output, false), End::Completed(types::Payload::Inline(bytes)) if bytes == [7]));
    }
}
