//! Fresh sandboxes, calls both ways, many at once, and the end of one that will not stop.

use std::{
    pin::Pin,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use skep_built_guests::FIGURES;
use skep_rules::{
    capability::GrantWord,
    grant::Effective,
    id::{AgentId, CrewId, Digest, TaskId},
    limits::{Limits, Tier},
    plan::Payload,
    quantity::{Millis, Size, Time},
    reason::Reason,
    seam::{Call, End, HostCall, HostReply, Identity, Lease, RunnerEvent, StepReply, TaskView},
    step::{Recorded, Step, StepCall, StepResult},
};
use skep_runtime::{Compiler, Control, Host, Options, Prepared, Sandbox};

use crate::{percentiles, round, time};

/// A host that holds one component and answers nothing else.
struct Bench(&'static [u8]);

impl Host for Bench {
    fn event(&self, _: RunnerEvent) {}

    fn component(&self, _: Digest) -> std::io::Result<Vec<u8>> {
        Ok(self.0.to_vec())
    }

    /// Everything that the guest asks for is a move of its clock.
    fn step(&self, _: Lease, _: u64, call: StepCall) -> StepReply {
        let at = match &call {
            StepCall::Clock { alarm: Some(alarm) } => *alarm,
            _ => Time(0),
        };
        StepReply::Recorded(Recorded {
            step: Step {
                asked: call.asked(),
                at,
                result: StepResult::Done,
            },
            ends: Vec::new(),
        })
    }

    fn record(&self, _: Lease, _: u64) -> Result<Vec<Recorded>, Reason> {
        Ok(Vec::new())
    }

    fn call(&self, _: HostCall) -> Pin<Box<dyn Future<Output = HostReply> + Send>> {
        Box::pin(async { HostReply::Refused(Reason::NotFound) })
    }
}

/// What attempts are made of; the directory lives as long.
pub(crate) struct Ready {
    pub(crate) agent: Arc<Prepared>,
    _sandbox: Sandbox,
    _directory: tempfile::TempDir,
}

/// The guest `figures` under the limits of the tier `medium`, changed as asked.
pub(crate) fn ready(slots: u32, change: impl FnOnce(&mut Limits)) -> Ready {
    ready_of(FIGURES, slots, change)
}

fn ready_of(component: &'static [u8], slots: u32, change: impl FnOnce(&mut Limits)) -> Ready {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let options = Options {
        compiler: Compiler::InProcess,
        cache_dir: directory.path().join("cache"),
        cache_key: [0; 32],
        workspaces: directory.path().join("workspaces"),
        slots,
        memory: None,
        guest_threads: 2,
    };
    let sandbox = Sandbox::new(&options).expect("the sandbox starts");
    let mut limits = Tier::Medium.limits();
    change(&mut limits);
    let effective = Effective {
        mounts: vec![],
        workspace: Size(0),
        artifacts: Size(0),
        env: Default::default(),
        limits,
        word: GrantWord::free(),
        state: Size(0),
        children: 0,
        messages: skep_rules::message::Topics::default(),
    };
    let identity = Identity {
        agent: AgentId::new(1, 0),
        generation: 1,
        name: "bench".into(),
        crew: CrewId::new(1, 0),
    };
    let agent = sandbox
        .prepare(Arc::new(Bench(component)), identity, Digest::of(component), effective)
        .expect("the guest can be prepared");
    Ready {
        agent,
        _sandbox: sandbox,
        _directory: directory,
    }
}

pub(crate) fn view(input: &Value) -> TaskView {
    TaskView {
        attempt: 1,
        description: String::new(),
        input: Payload::Inline(input.to_string().into_bytes()),
        dependencies: vec![],
        facts: None,
        remarks: vec![],
        seed: 1,
        began: Time(0),
        records: true,
        deadline: None,
        fuel: None,
    }
}

fn control() -> Arc<Control> {
    Control::new(Lease {
        task: TaskId::new(1, 0),
        epoch: 1,
        agent: AgentId::new(1, 0),
        generation: 1,
    })
}

/// One attempt from nothing to nothing.
pub(crate) async fn attempt(agent: &Arc<Prepared>, input: &Value) -> End {
    agent.attempt(&control(), Call::Execute, view(input), 0).await.end
}

fn single<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime starts")
        .block_on(work)
}

/// Attempts as fast as one thread makes them.
fn attempts(agent: &Arc<Prepared>, count: usize) -> Vec<Duration> {
    single(async {
        let mut samples = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            let end = attempt(agent, &json!(0)).await;
            samples.push(start.elapsed());
            assert!(matches!(end, End::Finished(_)), "{end:?}");
        }
        samples
    })
}

/// Fresh store, instance, one call, drop, with all limits on.
pub(crate) fn instantiate() -> Vec<Value> {
    const COUNT: usize = 50_000;
    let ready = ready(64, |_| {});
    attempts(&ready.agent, 2_000);
    let (samples, one) = time(|| attempts(&ready.agent, COUNT));
    let (p50, p99) = percentiles(samples);
    let barrier = Barrier::new(2);
    let (_, two) = time(|| {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    barrier.wait();
                    attempts(&ready.agent, COUNT);
                });
            }
        });
    });
    let rate = |count: usize, time: Duration| round(count as f64 / time.as_secs_f64(), 0);
    vec![
        json!({"value": p50, "unit": "µs", "p50": p50, "p99": p99, "n": COUNT, "threads": 1, "rate_per_s": rate(COUNT, one)}),
        json!({"value": rate(2 * COUNT, two), "unit": "attempts/s", "n": 2 * COUNT, "threads": 2, "ratio_to_one_thread": round(2.0 * one.as_secs_f64() / two.as_secs_f64(), 2)}),
    ]
}

/// A call of an export of an instance that is there already: the bundled `echo`, which takes a small list of bytes and gives it back.
pub(crate) fn call() -> Vec<Value> {
    const COUNT: u32 = 200_000;
    let echo = skep_bundled::get("echo").expect("echo is bundled").component;
    let ready = ready_of(echo, 8, |_| {});
    let calls = || single(ready.agent.repeat(&control(), view(&json!([1, 2, 3])), COUNT)).expect("the calls finish");
    calls();
    let mut samples: Vec<Duration> = (0..5).map(|_| calls() / COUNT).collect();
    samples.sort_unstable();
    let nanos = |duration: Duration| round(duration.as_secs_f64() * 1e6, 3);
    vec![
        json!({"value": nanos(samples[2]), "unit": "µs", "p50": nanos(samples[2]), "best": nanos(samples[0]), "n": 5 * COUNT, "threads": 1}),
    ]
}

/// A heartbeat from inside a guest, its grant check and meter included.
pub(crate) fn host_call() -> Vec<Value> {
    const COUNT: u32 = 300_000;
    let ready = ready(8, |_| {});
    let beats = |count: u32| time(|| single(attempt(&ready.agent, &json!({"do": "beat", "n": count}))));
    beats(COUNT);
    let mut samples: Vec<f64> = (0..9)
        .map(|_| {
            let ((_, none), (end, many)) = (beats(0), beats(COUNT));
            assert!(matches!(end, End::Finished(_)), "{end:?}");
            many.saturating_sub(none).as_secs_f64() * 1e9 / f64::from(COUNT)
        })
        .collect();
    samples.sort_unstable_by(f64::total_cmp);
    vec![
        json!({"value": round(samples[4], 1), "unit": "ns", "p50": round(samples[4], 1), "best": round(samples[0], 1), "n": 9 * COUNT, "threads": 1}),
    ]
}

/// Many attempts live inside `execute` at once.
pub(crate) fn resident() -> Vec<Value> {
    const COUNT: usize = 10_000;
    let ready = ready(10_000, |_| {});
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime starts");
    // The first one pays for what all share.
    runtime.block_on(attempt(&ready.agent, &json!({"do": "wait", "n": 1})));
    let before = rss();
    let controls: Vec<_> = (0..COUNT).map(|_| control()).collect();
    let (_, inside) = time(|| {
        for control in &controls {
            let (agent, control) = (ready.agent.clone(), control.clone());
            runtime.spawn(async move {
                agent
                    .attempt(&control, Call::Execute, view(&json!({"do": "wait", "n": 120_000})), 0)
                    .await
            });
        }
        // An attempt that called its host is inside `execute`.
        for control in &controls {
            while control.beat().is_none() {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    let each = (rss() - before) as f64 / COUNT as f64 / 1024.0;
    let live = runtime.metrics().num_alive_tasks();
    assert!(live >= COUNT, "{live} of {COUNT} attempts are live");
    let (_, gone) = time(|| {
        controls.iter().for_each(|control| control.cancel());
        while runtime.metrics().num_alive_tasks() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    vec![
        json!({"value": round(inside.as_secs_f64(), 3), "unit": "s", "n": COUNT, "in_flight": COUNT, "threads": 2, "cancel_all_s": round(gone.as_secs_f64(), 3)}),
        json!({"value": round(each, 1), "unit": "KiB each", "n": COUNT, "in_flight": COUNT}),
    ]
}

/// Resident bytes of this process.
fn rss() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * 4096
}

/// From a passed deadline to a free slot, while a guest spins.
pub(crate) fn kill() -> Vec<Value> {
    const DEADLINE: Millis = Millis(20);
    const COUNT: usize = 300;
    let ready = ready(8, |limits| limits.deadline = DEADLINE);
    let samples: Vec<Duration> = (0..COUNT)
        .map(|_| {
            // fib(60) takes hours.
            let (end, wall) = time(|| single(attempt(&ready.agent, &json!({"do": "fib", "n": 60}))));
            assert!(
                matches!(
                    end,
                    End::Stopped {
                        reason: Reason::DeadlineExceeded,
                        ..
                    }
                ),
                "{end:?}"
            );
            wall.saturating_sub(DEADLINE.duration())
        })
        .collect();
    let (p50, p99) = percentiles(samples);
    vec![
        json!({"value": round(p99 / 1e3, 3), "unit": "ms", "p50": round(p50 / 1e3, 3), "p99": round(p99 / 1e3, 3), "n": COUNT, "threads": 1}),
    ]
}
