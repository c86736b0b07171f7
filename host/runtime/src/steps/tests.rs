//! Agents that take every kind of step, run live, given their records, parked and woken.

use std::time::Duration;

use skep_rules::{
    capability::{Capability, GrantWord},
    grant::Effective,
    id::{AgentId, Digest, TaskId},
    limits::{CLOCK_READS, MAX_WARMING, PARK},
    plan::{Outcome, Payload},
    quantity::{Fuel, Millis, Size, Time},
    reason::Reason,
    seam::{Call, End, Identity, Lease, RunnerCommand, RunnerEvent, Usage},
    step::{StepCall, StepName, StepResult},
};

use crate::{
    Control, Ran, Sandbox,
    caps::clocks::Clock,
    trial::{BEGAN, Left, Trial, effective, identity, lease, module_of, options, task},
};

/// The interfaces of WASI that the guests here use, as far as they use them.
const WIT: &str = r#"
package trial:steps;
world guest {
    include skep:agent/executor-agent@0.1.0;
    import wasi:io/poll@0.2.12;
    import wasi:clocks/monotonic-clock@0.2.12;
}
package wasi:io@0.2.12 {
    interface poll {
        resource pollable { ready: func() -> bool; block: func(); }
        poll: func(in: list<borrow<pollable>>) -> list<u32>;
    }
}
package wasi:clocks@0.2.12 {
    interface monotonic-clock {
        use wasi:io/poll@0.2.12.{pollable};
        now: func() -> u64;
        subscribe-instant: func(when: u64) -> pollable;
        subscribe-duration: func(when: u64) -> pollable;
    }
}
"#;

/// What the bodies of the tests are made of. `$note` appends a number to what the agent returns; each of the others notes what it was answered.
const WORDS: &str = r#"
    (import "skep:agent/state@0.1.0" "get" (func $state_get (param i32 i32 i32)))
    (import "skep:agent/state@0.1.0" "put" (func $state_put (param i32 i32 i32 i32 i32)))
    (import "skep:agent/tasks@0.1.0" "spawn" (func $tasks_spawn (param i32 i32)))
    (import "skep:agent/tasks@0.1.0" "await" (func $tasks_await (param i32 i32 i32 i32 i64 i32)))
    (import "skep:agent/tasks@0.1.0" "sleep-until" (func $tasks_sleep (param i64 i32)))
    (import "skep:agent/tasks@0.1.0" "continue" (func $tasks_continue (param i32 i32 i32 i64 i32 i32) (result i32)))
    (import "skep:agent/heartbeat@0.1.0" "beat" (func $heartbeat_beat (param i32 i32) (result i32)))
    (import "skep:agent/artifacts@0.1.0" "[constructor]writer" (func $writer (param i32 i32) (result i32)))
    (import "skep:agent/artifacts@0.1.0" "[method]writer.write" (func $writer_write (param i32 i32 i32 i32)))
    (import "skep:agent/artifacts@0.1.0" "[static]writer.finish" (func $writer_finish (param i32 i32)))
    (import "skep:agent/artifacts@0.1.0" "read" (func $artifacts_read (param i32 i32 i64 i32 i32)))
    (import "wasi:clocks/monotonic-clock@0.2.12" "now" (func $clock_now (result i64)))
    (import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $alarm (param i64) (result i32)))
    (import "wasi:io/poll@0.2.12" "poll" (func $poll_poll (param i32 i32 i32)))
    (import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/poll@0.2.12" "[method]pollable.ready" (func $poll_ready (param i32) (result i32)))
    (memory (export "memory") 32)
    (data (i32.const 2048) "abcdefghijklmnopqrstuvwxyz")
    (data (i32.const 2100) "text/plain")
    (global $next (mut i32) (i32.const 131072))
    (global $noted (mut i32) (i32.const 65536))
    (global $children (mut i32) (i32.const 0))
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
        global.get $next
        (global.set $next (i32.add (global.get $next) (local.get 3))))
    (func $note (param i64)
        (i64.store (global.get $noted) (local.get 0))
        (global.set $noted (i32.add (global.get $noted) (i32.const 8))))
    (func $told (param i32) (call $note (i64.extend_i32_u (i32.load8_u (local.get 0)))))
    (func $get (param i32)
        (call $state_get (i32.add (i32.const 2048) (local.get 0)) (i32.const 1) (i32.const 512))
        (call $told (i32.const 512))
        (call $told (i32.const 520))
        (call $note (i64.load (i32.const 544))))
    (func $put (param i32)
        (call $state_put (i32.add (i32.const 2048) (local.get 0)) (i32.const 1) (i32.const 2048) (i32.const 3) (i32.const 512))
        (call $told (i32.const 512))
        (call $note (i64.load (i32.const 520))))
    (func $spawn
        ;; A child in memory: its description, an inline input, and nothing else said.
        (i32.store (i32.const 8192) (i32.const 2048))
        (i32.store (i32.const 8196) (i32.const 4))
        (i32.store (i32.const 8208) (i32.const 2048))
        (i32.store (i32.const 8212) (i32.const 2))
        (call $tasks_spawn (i32.const 8192) (i32.const 512))
        (call $told (i32.const 512))
        (i64.store (i32.add (i32.const 4096) (i32.mul (global.get $children) (i32.const 8))) (i64.load (i32.const 516)))
        (global.set $children (i32.add (global.get $children) (i32.const 1))))
    (func $await
        (call $tasks_await (i32.const 4096) (global.get $children) (i32.const 1) (i32.const 0) (i64.const 0) (i32.const 512))
        (call $told (i32.const 512))
        (call $note (i64.load32_u (i32.const 520))))
    (func $sleep (param i64)
        (call $tasks_sleep (local.get 0) (i32.const 512))
        (call $told (i32.const 512)))
    (func $continue
        (call $note (i64.extend_i32_u
            (call $tasks_continue (i32.const 0) (i32.const 2048) (i32.const 5) (i64.const 0) (i32.const 0) (i32.const 0)))))
    (func $beat (call $note (i64.extend_i32_u (call $heartbeat_beat (i32.const 0) (i32.const 0)))))
    (func $store (param i32) (local $w i32)
        (local.set $w (call $writer (i32.const 2100) (i32.const 10)))
        (call $writer_write (local.get $w) (i32.const 2048) (local.get 0) (i32.const 512))
        (call $writer_finish (local.get $w) (i32.const 512))
        (call $told (i32.const 512))
        ;; Where its digest is.
        (i64.store (i32.const 600) (i64.load (i32.const 520))))
    (func $read
        (call $artifacts_read (i32.load (i32.const 600)) (i32.load (i32.const 604)) (i64.const 1) (i32.const 2) (i32.const 512))
        (call $told (i32.const 512))
        (call $note (i64.load32_u (i32.const 520))))
    (func $now (call $note (call $clock_now)))
    (func $poll (param i32 i32)
        (i32.store (i32.const 640) (local.get 0))
        (i32.store (i32.const 644) (local.get 1))
        (call $poll_poll (i32.const 640) (i32.const 2) (i32.const 512))
        (call $note (i64.load32_u (i32.const 516)))
        (call $note (i64.load32_u (i32.load (i32.const 512)))))
    (func $done (result i32)
        (i32.store (i32.const 1048) (i32.const 65536))
        (i32.store (i32.const 1052) (i32.sub (global.get $noted) (i32.const 65536)))
        i32.const 1024)
"#;

const MS: u64 = 1_000_000;

fn agent(body: &str) -> Vec<u8> {
    let wat = format!(
        r#"(module {WORDS}
            (func (export "skep:agent/executor@0.1.0#execute") (param i32) (result i32)
                (local $x i32) (local $y i32)
                {body} (call $done)))"#
    );
    module_of(&wat, "guest", WIT)
}

fn granted() -> Effective {
    let word = [Capability::Artifacts, Capability::State, Capability::Tasks]
        .into_iter()
        .fold(GrantWord::free(), GrantWord::with);
    Effective {
        artifacts: Size(1 << 20),
        state: Size(1 << 20),
        children: 9,
        word,
        ..effective(|_| {})
    }
}

fn ready(body: &str) -> Trial {
    let trial = Trial::new();
    trial.warm(&agent(body), 1, granted()).unwrap();
    trial
}

impl Trial {
    /// One attempt to its end, with all that is on record.
    fn again(&self, epoch: u64) -> Left {
        let recorded = self.bench.ledger.lock().unwrap().record.len() as u64;
        self.resume(epoch, Call::Execute, recorded);
        self.started(epoch);
        self.ended(epoch)
    }

    fn asked(&self) -> u64 {
        self.bench.ledger.lock().unwrap().asked
    }

    fn names(&self) -> Vec<StepName> {
        let ledger = self.bench.ledger.lock().unwrap();
        ledger.record.iter().map(|recorded| recorded.step.asked.name).collect()
    }

    /// Until so many attempts wait.
    fn parked(&self, many: usize) {
        let reached = (0..2_000).any(|_| {
            self.runner.waiting() == many && self.runner.attempts() == 0 || {
                std::thread::sleep(Duration::from_millis(2));
                false
            }
        });
        assert!(reached, "{} attempts wait", self.runner.waiting());
    }

    /// Answers the wait and starts the attempt that goes on behind it.
    fn wake(&self, epoch: u64) {
        self.bench.ledger.lock().unwrap().answer();
        let recorded = self.bench.ledger.lock().unwrap().record.len() as u64;
        self.resume(epoch, Call::Execute, recorded);
        self.started(epoch);
    }
}

/// What the agent noted.
fn noted(left: &Left) -> Vec<u64> {
    match &left.0 {
        End::Finished(Outcome::Done(Payload::Inline(bytes))) => bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect(),
        end => panic!("{end:?}"),
    }
}

fn diverged(left: &Left) -> (u64, &str, &str) {
    match &left.0 {
        End::Diverged { step, expected, got } => (*step, expected, got),
        end => panic!("{end:?}"),
    }
}

const SOME_OF_ALL: &str = "
    (call $put (i32.const 0)) (call $put (i32.const 0)) (call $get (i32.const 0)) (call $get (i32.const 1))
    (call $spawn) (call $now) (call $store (i32.const 5)) (call $read) (call $now) (call $put (i32.const 1)) (call $now)";

#[test]
fn a_second_run_is_answered_from_the_record_alone() {
    let trial = ready(SOME_OF_ALL);
    let first = trial.again(1);
    let mut asked = trial.asked();
    assert_eq!(trial.names().len(), 8);
    let seen = noted(&first);
    assert_eq!(seen[..4], [0, 1, 0, 2], "two revisions: {seen:?}");
    // What could be seen otherwise now is not.
    trial.bench.ledger.lock().unwrap().state.clear();
    let pages = trial.bench.ledger.lock().unwrap().pages;
    let second = trial.again(2);
    assert_eq!(noted(&second), seen);
    assert_eq!(trial.asked(), asked, "nothing was asked again");
    let fetched = trial.bench.ledger.lock().unwrap().pages - pages;
    assert_eq!(fetched, 3, "eight steps in pages of three");
    // Half of the record is lost: the rest is asked for.
    trial.bench.ledger.lock().unwrap().record.truncate(2);
    asked = trial.asked();
    let third = trial.again(3);
    assert_eq!(noted(&third)[..4], seen[..4]);
    assert_eq!(
        trial.asked() - asked,
        4,
        "artifacts are recorded by whoever stores them"
    );
    assert_eq!(trial.names().len(), 8);
}

#[test]
fn a_stored_artifact_is_not_stored_again_and_a_read_one_is_read_again() {
    let trial = ready("(call $store (i32.const 5)) (call $read) (call $store (i32.const 6))");
    let first = trial.again(1);
    trial.bench.blobs.lock().unwrap().remove(&Digest::of(b"abcdef"));
    assert_eq!(noted(&trial.again(2)), noted(&first));
    assert!(!trial.bench.blobs.lock().unwrap().contains_key(&Digest::of(b"abcdef")));
    // A blob that is gone is no other answer for the guest: it is the host that lacks it.
    trial.bench.blobs.lock().unwrap().clear();
    let (end, ..) = trial.again(3);
    assert!(
        matches!(&end, End::HostFault { message } if message.contains("cannot be read again")),
        "{end:?}"
    );
}

#[test]
fn a_read_that_was_refused_is_refused_again() {
    let trial = ready("(i64.store (i32.const 600) (i64.load (i32.const 704))) (call $read)");
    // No digest at all takes no step.
    assert_eq!(noted(&trial.again(1))[0], 1);
    assert_eq!(trial.names(), []);

    let digest = Digest::of(b"later");
    let text = "(call $store (i32.const 5)) (memory.copy (i32.load (i32.const 600)) (i32.const 2200) (i32.const 64)) (call $read)";
    let wat = format!(r#"(data (i32.const 2200) "{digest}")"#);
    let component = module_of(
        &format!(
            r#"(module {WORDS} {wat} (func (export "skep:agent/executor@0.1.0#execute") (param i32) (result i32) {text} (call $done)))"#
        ),
        "guest",
        WIT,
    );
    trial.warm(&component, 1, granted()).unwrap();
    let first = trial.again(2);
    assert_eq!(noted(&first)[1], 1, "it is not there");
    trial.bench.blobs.lock().unwrap().insert(digest, b"later".to_vec());
    assert_eq!(noted(&trial.again(3)), noted(&first));
}

#[test]
fn whoever_asks_something_else_has_diverged() {
    let record = "(call $put (i32.const 0)) (call $get (i32.const 1))";
    let cases = [
        ("(call $put (i32.const 0)) (call $spawn)", 1, "state.get", "tasks.spawn"),
        (
            "(call $put (i32.const 0)) (call $get (i32.const 2))",
            1,
            "state.get",
            "state.get",
        ),
        ("(call $put (i32.const 3))", 0, "state.put", "state.put"),
        ("(call $put (i32.const 0))", 1, "state.get", "come to its end"),
        ("", 0, "state.put", "come to its end"),
        ("(call $continue)", 0, "state.put", "come to its end"),
        (
            "(call $block (call $alarm (i64.const 1000000)))",
            0,
            "state.put",
            "clock",
        ),
    ];
    let trial = ready(record);
    trial.again(1);
    for (epoch, (body, at, expected, got)) in (2..).zip(cases) {
        trial.warm(&agent(body), 1, granted()).unwrap();
        let left = trial.again(epoch);
        let (step, told, did) = diverged(&left);
        assert_eq!(step, at, "{body}");
        assert!(
            told.starts_with(expected) && did.starts_with(got) && told != did,
            "{body}: {told} / {did}"
        );
    }
    assert_eq!(trial.asked(), 2, "none of them was asked of the host");
    // What ends otherwise is what it is.
    trial.warm(&agent("unreachable"), 1, granted()).unwrap();
    assert!(matches!(
        trial.again(20).0,
        End::Stopped {
            reason: Reason::Trapped,
            ..
        }
    ));
    trial
        .warm(
            &agent("(loop $again (br $again))"),
            1,
            Effective {
                limits: effective(|limits| limits.deadline = Millis(50)).limits,
                ..granted()
            },
        )
        .unwrap();
    assert!(matches!(
        trial.again(21).0,
        End::Stopped {
            reason: Reason::DeadlineExceeded,
            ..
        }
    ));
}

#[test]
fn the_clock_stands_still_between_steps() {
    let trial = ready(
        "(call $now) (call $now) (call $put (i32.const 0)) (call $now) (call $put (i32.const 0)) (call $now) (call $now)",
    );
    let seen = noted(&trial.again(1));
    let times = [seen[0], seen[1], seen[4], seen[7], seen[8]];
    assert_eq!(times, [0, 0, 10 * MS, 20 * MS, 20 * MS]);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(noted(&trial.again(2)), seen);
}

#[test]
fn whoever_reads_the_clock_again_and_again_sees_it_move() {
    let reads = |times: u32| {
        format!(
            "(local.set $x (i32.const {times})) (loop $again (drop (call $clock_now))
                (br_if $again (local.tee $x (i32.sub (local.get $x) (i32.const 1))))) (call $now)"
        )
    };
    let trial = ready(&reads(CLOCK_READS - 1));
    assert_eq!(noted(&trial.again(1)), [0]);
    assert_eq!(trial.names(), []);
    let trial = ready(&format!("{} {}", reads(CLOCK_READS), reads(CLOCK_READS - 2)));
    let first = trial.again(1);
    assert_eq!(
        noted(&first),
        [10 * MS, 10 * MS],
        "the 257th is a step, and it counts anew"
    );
    assert_eq!(trial.names(), [StepName::Clock]);
    assert_eq!(noted(&trial.again(2)), noted(&first));
    assert_eq!(trial.asked(), 1);
}

#[test]
fn an_alarm_that_is_waited_for_moves_the_clock_to_where_it_stands() {
    let trial = ready(
        "(call $block (call $alarm (i64.const 30000000))) (call $now) (call $block (call $alarm (i64.const 1))) (call $now)",
    );
    let first = trial.again(1);
    assert_eq!(noted(&first), [30 * MS, 31 * MS]);
    assert_eq!(trial.names(), [StepName::Clock; 2]);
    assert_eq!(noted(&trial.again(2)), noted(&first));
}

#[test]
fn several_alarms_come_in_the_same_order_again() {
    // Two, the later one first or last; then what is left; then two at the same time.
    let cases = [(40, 20), (20, 40), (20, 20), (20, 21)];
    for (one, other) in cases {
        let body = format!(
            "(local.set $x (call $alarm (i64.const {}))) (local.set $y (call $alarm (i64.const {})))
             (call $poll (local.get $x) (local.get $y)) (call $now)
             (call $note (i64.extend_i32_u (call $poll_ready (local.get $x))))
             (call $note (i64.extend_i32_u (call $poll_ready (local.get $y))))
             (call $block (local.get $x)) (call $block (local.get $y)) (call $now)",
            one * MS,
            other * MS
        );
        let trial = ready(&body);
        let first = trial.again(1);
        let (sooner, later) = (one.min(other), one.max(other));
        let both = u64::from(one == other);
        let index = u64::from(other < one);
        let come = |alarm| u64::from(alarm == sooner);
        let expected = [1 + both, index, sooner * MS, come(one), come(other), later * MS];
        assert_eq!(noted(&first), expected, "{one}, {other}");
        assert_eq!(trial.names().len(), if both == 1 { 1 } else { 2 });
        assert_eq!(noted(&trial.again(2)), noted(&first));
    }
}

#[test]
fn an_alarm_that_is_asked_for_again_and_again_comes() {
    let body = "(local.set $x (call $alarm (i64.const 5000000)))
        (loop $again (br_if $again (i32.eqz (call $poll_ready (local.get $x))))) (call $now)";
    let trial = ready(body);
    let first = trial.again(1);
    assert_eq!((noted(&first), trial.names()), (vec![10 * MS], vec![StepName::Clock]));
    assert_eq!(noted(&trial.again(2)), noted(&first));
}

#[test]
fn a_wish_is_told_at_the_same_beat_again() {
    let beats = "(call $beat) (call $put (i32.const 0)) (call $beat)
        (loop $again (br_if $again (i32.eqz (call $heartbeat_beat (i32.const 0) (i32.const 0))))) (call $beat) (call $put (i32.const 1))";
    let trial = ready(beats);
    trial.start(1, Call::Execute);
    trial.started(1);
    std::thread::sleep(Duration::from_millis(20));
    trial.runner.command(RunnerCommand::Drain { agent: lease(1).agent });
    let first = trial.ended(1);
    assert_eq!(noted(&first), [0, 0, 1, 0, 1, 0, 1]);
    assert_eq!(trial.names(), [StepName::Put, StepName::Directive, StepName::Put]);
    // Now it is told from the start; the record says otherwise.
    let second = trial.again(2);
    assert_eq!(noted(&second), noted(&first));
    assert_eq!(second.1.hostcalls, first.1.hostcalls, "at the same beat");
    // Where the record ends before, it is heard at the first beat behind.
    trial.bench.ledger.lock().unwrap().record.truncate(1);
    assert_eq!(noted(&trial.again(3)), [0, 0, 1, 1, 1, 0, 2]);
}

#[test]
fn what_is_out_of_bounds_takes_no_step() {
    let key = "(call $state_put (i32.const 2048) (i32.const LEN) (i32.const 2048) (i32.const VALUE) (i32.const 512))
        (call $told (i32.const 512)) (call $told (i32.const 520))";
    let put = |len: u32, value: u32| {
        key.replace("LEN", &len.to_string())
            .replace("VALUE", &value.to_string())
    };
    let body = [
        put(0, 1),
        put(257, 1),
        put(1, 65_537),
        "(call $await)".into(),
        "(call $sleep (i64.const -1))".into(),
        "(call $note (i64.extend_i32_u (call $tasks_continue (i32.const 0) (i32.const 0) (i32.const 262145) (i64.const 0) (i32.const 0) (i32.const 0))))".into(),
    ]
    .concat();
    let trial = ready(&body);
    // The cases of the two errors, as the contract numbers them.
    assert_eq!(noted(&trial.again(1)), [1, 2, 1, 2, 1, 2, 1, 2, 1, 1]);
    assert_eq!((trial.names(), trial.asked()), (vec![], 0));
}

#[test]
fn killed_at_every_step_it_ends_the_same() {
    let body = "(call $put (i32.const 0)) (call $spawn) (call $now) (call $block (call $alarm (i64.const 3000000)))
        (call $get (i32.const 0)) (call $spawn) (call $await) (call $beat) (call $store (i32.const 5)) (call $put (i32.const 0)) (call $read)
        (call $sleep (i64.const 1)) (call $now) (call $get (i32.const 3)) (call $now)";
    let trial = ready(body);
    trial.bench.ledger.lock().unwrap().at_once = true;
    let seen = noted(&trial.again(1));
    let (state, steps) = {
        let ledger = trial.bench.ledger.lock().unwrap();
        (ledger.state.clone(), ledger.record.len())
    };
    assert_eq!(steps, 11);
    for kept in 0..=steps {
        trial.bench.ledger.lock().unwrap().rewind(kept);
        let asked = trial.asked();
        assert_eq!(noted(&trial.again(2 + kept as u64)), seen, "killed after {kept}");
        let ledger = trial.bench.ledger.lock().unwrap();
        assert_eq!((&ledger.state, ledger.record.len()), (&state, steps));
        assert!(ledger.asked - asked <= (steps - kept) as u64);
    }
}

#[test]
fn a_record_can_be_run_without_a_runner() {
    let trial = ready(WAITS);
    let run = |body: &str, recorded: u64| {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::new(&options(dir.path())).unwrap();
        let component = trial.offer(&agent(body));
        let prepared = sandbox
            .prepare(trial.bench.clone(), identity(1), component, granted())
            .unwrap();
        let mut attempt = prepared.begin(Control::new(lease(1)), Call::Execute, task(b""), recorded);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let ran = runtime.block_on(attempt.run());
        (ran, attempt.steps())
    };
    let waits = run(WAITS, 0);
    assert!(matches!(waits, (Ran::Waiting, 2)), "{waits:?}");
    trial.bench.ledger.lock().unwrap().answer();
    let waits = run(WAITS, 3);
    assert!(matches!(waits, (Ran::Waiting, 4)), "{waits:?}");
    trial.bench.ledger.lock().unwrap().answer();
    let (Ran::Ended(ended), 5) = run(WAITS, 5) else {
        panic!("it has all its answers")
    };
    assert!(matches!(ended.end, End::Finished(Outcome::Done(_))), "{:?}", ended.end);
    let other = WAITS.replace("(call $put (i32.const 0))", "(call $put (i32.const 1))");
    let (Ran::Ended(ended), 3) = run(&other, 5) else {
        panic!("it does something else")
    };
    assert!(matches!(ended.end, End::Diverged { step: 3, .. }), "{:?}", ended.end);
}

#[test]
fn whoever_needs_the_room_of_those_that_wait_has_it() {
    // Nearly all the memory that there is, held by one that waits.
    let holds = "(drop (memory.grow (i32.const 190))) (call $sleep (i64.const 1))";
    let trial = Trial::with(|options| options.memory = Some(Size(12 << 20)));
    trial.warm(&agent(holds), 1, granted()).unwrap();
    let start = |number: u128, epoch| {
        let lease = Lease {
            task: TaskId::new(number << 16, 0),
            ..lease(epoch)
        };
        trial.bench.ledger.lock().unwrap().record.clear();
        trial.runner.command(RunnerCommand::Start {
            lease,
            call: Call::Execute,
            task: task(b""),
            recorded: 0,
        });
        assert_eq!(trial.next(), RunnerEvent::Started { lease });
        trial.parked(1);
        lease.task
    };
    let (first, second) = (start(1, 1), start(2, 1));
    assert!(first != second && trial.runner.tasks_waiting() == [second]);

    // All the slots that there are, one of them held by one that waits.
    let trial = ready(WAITS);
    trial.start(1, Call::Execute);
    trial.started(1);
    trial.parked(1);
    let other = AgentId::new(2 << 16, 0);
    trial.runner.command(RunnerCommand::Warm {
        agent: Identity {
            agent: other,
            ..identity(1)
        },
        component: trial.offer(&agent("(loop $again (br $again))")),
        effective: granted(),
    });
    assert!(matches!(trial.next(), RunnerEvent::Warmed { .. }));
    let pool = 8 + u64::from(MAX_WARMING);
    let leases: Vec<_> = (2..2 + pool)
        .map(|epoch| Lease {
            agent: other,
            ..lease(epoch)
        })
        .collect();
    for lease in &leases {
        trial.runner.command(RunnerCommand::Start {
            lease: *lease,
            call: Call::Execute,
            task: task(b""),
            recorded: 0,
        });
    }
    for _ in &leases {
        let told = trial.next();
        assert!(matches!(told, RunnerEvent::Started { .. }), "{told:?}");
    }
    // Each of them runs: one that found no slot would be the first to end.
    for lease in leases {
        trial.runner.command(RunnerCommand::Cancel { lease });
        let told = trial.next();
        assert!(
            matches!(
                told,
                RunnerEvent::Ended {
                    end: End::Cancelled,
                    ..
                }
            ),
            "{told:?}"
        );
    }
    assert_eq!(trial.runner.waiting(), 0);
}

#[test]
fn a_check_has_no_record() {
    let wat = format!(
        r#"(module {WORDS} (func (export "skep:agent/checker@0.1.0#check") (param i32) (result i32)
            (call $put (i32.const 0)) (call $spawn) (call $sleep (i64.const 0)) (call $beat)
            (call $store (i32.const 5)) (call $block (call $alarm (i64.const 1000000)))
            ;; Rejected, with what was noted as the remark: bytes below 128 are text.
            (i32.store8 (i32.const 1032) (i32.const 1))
            (i32.store (i32.const 1036) (i32.const 65536))
            (i32.store (i32.const 1040) (i32.sub (global.get $noted) (i32.const 65536)))
            i32.const 1024))"#
    );
    let wit = WIT.replace("executor-agent", "checker-agent");
    let trial = Trial::new();
    trial.warm(&module_of(&wat, "guest", &wit), 1, granted()).unwrap();
    let result = Payload::Inline(vec![]);
    trial.start(1, Call::Check { result });
    trial.started(1);
    let (end, _, denials, _) = trial.ended(1);
    let End::Finished(Outcome::Rejected(remark)) = end else {
        panic!("{end:?}")
    };
    // put: refused; spawn: refused; sleep: refused; beat: continue; store: stored.
    let firsts: Vec<_> = remark.matches("\\u{1}").collect();
    assert_eq!(firsts.len(), 3, "{remark}");
    let denied: Vec<_> = denials
        .iter()
        .map(|denial| (denial.reason, denial.what.as_str()))
        .collect();
    let expected = ["state.put", "tasks.spawn", "tasks.sleep-until"].map(|what| (Reason::CapabilityDenied, what));
    assert_eq!(denied, expected);
    assert_eq!((trial.asked(), trial.names()), (0, vec![]));
    assert_eq!(trial.bench.blobs.lock().unwrap().len(), 1);
}

#[test]
fn a_refusal_that_is_not_recorded_is_told_or_ends_the_attempt() {
    let refused = |body: &str, reason| {
        let trial = ready(body);
        trial.bench.ledger.lock().unwrap().refuse = Some(reason);
        trial.again(1)
    };
    // A record that is full is so a second time.
    let seen = noted(&refused("(call $put (i32.const 0))", Reason::RecordFull));
    assert_eq!((seen[0], seen[1] & 0xff), (1, 5));
    // Other reasons may be gone by then: the guest is not told.
    for reason in [Reason::Overloaded, Reason::Interrupted] {
        let (end, ..) = refused("(call $put (i32.const 0))", reason);
        assert!(matches!(end, End::Overload { .. }), "{end:?}");
    }
    // A clock has no word for it.
    let (end, ..) = refused("(call $block (call $alarm (i64.const 1)))", Reason::RecordFull);
    let full = matches!(
        end,
        End::Stopped {
            reason: Reason::RecordFull,
            ..
        }
    );
    assert!(full, "{end:?}");
}

#[test]
fn a_fenced_step_ends_the_attempt() {
    let trial = ready("(call $put (i32.const 0)) (call $put (i32.const 0))");
    trial.bench.ledger.lock().unwrap().epoch = Some(7);
    assert_eq!(trial.again(1).0, End::Fenced);
    assert_eq!(noted(&trial.again(7)), [0, 1, 0, 2]);
    // One that is given its record as well.
    assert_eq!(trial.again(8).0, End::Fenced);
}

#[test]
fn to_continue_ends_the_run_with_its_next_input() {
    let trial = ready("(call $put (i32.const 0)) (call $continue)");
    let next = End::Finished(Outcome::Continue(Payload::Inline(b"abcde".to_vec())));
    assert_eq!(trial.again(1).0, next);
    assert_eq!(trial.again(2).0, next);
}

const WAITS: &str = "(call $spawn) (call $spawn) (call $await) (call $now) (call $put (i32.const 0)) (call $sleep (i64.const 5000)) (call $now)";

/// What [`WAITS`] sees, however often its instance was lost.
const SEEN: [u64; 9] = [0, 0, 0, 2, 30 * MS, 0, 1, 0, 50 * MS];

#[test]
fn whoever_waits_goes_on_where_it_is() {
    let trial = ready(WAITS);
    trial.start(1, Call::Execute);
    trial.started(1);
    trial.parked(1);
    let pages = trial.bench.ledger.lock().unwrap().pages;
    trial.wake(2);
    trial.parked(1);
    assert_eq!(
        trial.bench.ledger.lock().unwrap().pages,
        pages + 1,
        "only the answer was fetched"
    );
    trial.wake(3);
    let left = trial.ended(3);
    assert_eq!(noted(&left), SEEN);
    assert_eq!(trial.runner.waiting(), 0);
    assert_eq!(trial.asked(), 5);
}

#[test]
fn whoever_was_evicted_goes_on_by_its_record() {
    let trial = ready(WAITS);
    trial.start(1, Call::Execute);
    trial.started(1);
    trial.parked(1);
    let began = Clock::start();
    // Nobody wakes it in time.
    while trial.runner.waiting() > 0 {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(began.elapsed() + Duration::from_millis(100) > PARK.duration());
    trial.wake(2);
    trial.parked(1);
    // By somebody who wants its agent gone for a moment.
    trial.warm(&agent(WAITS), 1, granted()).unwrap();
    trial.runner.command(RunnerCommand::Forget { agent: lease(1).agent });
    assert_eq!(trial.runner.waiting(), 0);
    trial.warm(&agent(WAITS), 1, granted()).unwrap();
    trial.wake(3);
    assert_eq!(noted(&trial.ended(3)), SEEN);
    assert_eq!(trial.asked(), 5, "no step twice");
}

#[test]
fn what_cannot_go_on_in_place_is_dropped() {
    let trial = ready(WAITS);
    trial.start(1, Call::Execute);
    trial.started(1);
    trial.parked(1);
    // As if another runner had gone on meanwhile: the record is longer than what waits here knows.
    let waits = {
        let mut ledger = trial.bench.ledger.lock().unwrap();
        ledger.answer();
        let call = StepCall::Put {
            key: "a".into(),
            value: b"abc".to_vec(),
            expected: None,
        };
        ledger.keep(&call, StepResult::Written(1));
        ledger.record.len() as u64
    };
    trial.resume(2, Call::Execute, waits);
    trial.started(2);
    trial.parked(1);
    trial.wake(3);
    assert_eq!(noted(&trial.ended(3)), SEEN);
    // A newer generation has no use for it either.
    trial.bench.ledger.lock().unwrap().record.clear();
    trial.start(4, Call::Execute);
    trial.started(4);
    trial.parked(1);
    trial.warm(&agent(WAITS), 2, granted()).unwrap();
    assert_eq!(trial.runner.waiting(), 0);
}

#[test]
fn another_agent_goes_on_in_place_if_it_is_made_alike() {
    let other = |epoch: u64| Lease {
        agent: AgentId::new(1 << 16, 0),
        ..lease(epoch)
    };
    let mut little_more = granted();
    little_more.limits.fuel.0 += 1;
    for (granted, in_place) in [(granted(), true), (little_more, false)] {
        let trial = ready(WAITS);
        // So that whoever begins anew fetches more than once.
        trial.bench.ledger.lock().unwrap().page = 1;
        trial.runner.command(RunnerCommand::Warm {
            agent: Identity {
                agent: other(1).agent,
                ..identity(1)
            },
            component: trial.offer(&agent(WAITS)),
            effective: granted,
        });
        assert!(matches!(trial.next(), RunnerEvent::Warmed { .. }));
        trial.start(1, Call::Execute);
        trial.started(1);
        trial.parked(1);
        let pages = trial.bench.ledger.lock().unwrap().pages;
        let wake = |lease: Lease| {
            trial.bench.ledger.lock().unwrap().answer();
            trial.runner.command(RunnerCommand::Start {
                lease,
                call: Call::Execute,
                task: task(b""),
                recorded: trial.bench.ledger.lock().unwrap().record.len() as u64,
            });
            assert_eq!(trial.next(), RunnerEvent::Started { lease });
        };
        wake(other(2));
        trial.parked(1);
        let fetched = trial.bench.ledger.lock().unwrap().pages - pages;
        assert_eq!(fetched == 1, in_place, "{fetched} pages");
        // What becomes of the agent before is no longer its affair: it would be dropped, and of its grants nothing would be left.
        trial.runner.command(RunnerCommand::Forget { agent: lease(1).agent });
        assert_eq!(trial.runner.waiting(), 1);
        wake(other(3));
        let RunnerEvent::Ended { lease, end, log, .. } = trial.next() else {
            panic!("it ends")
        };
        assert_eq!(lease, other(3));
        let left = (end, Usage::default(), Vec::new(), log);
        assert_eq!(noted(&left), SEEN);
        assert_eq!(trial.asked(), 5, "no step twice");
    }
}

#[test]
fn a_wake_up_that_comes_before_the_wait_is_not_lost() {
    let trial = ready(WAITS);
    trial.bench.ledger.lock().unwrap().hurry = Some(2);
    trial.start(1, Call::Execute);
    trial.started(1);
    trial.started(2);
    trial.parked(1);
    trial.wake(3);
    assert_eq!(noted(&trial.ended(3)), SEEN);
    assert_eq!(trial.asked(), 5);
}

#[test]
fn who_waits_longest_makes_room() {
    let trial = ready(WAITS);
    // A quarter of eight slots may wait, the pool holds sixteen more for warming: with another task each.
    let tasks: Vec<_> = (1..=4).map(|number| TaskId::new(number << 16, 0)).collect();
    for number in &tasks {
        trial.bench.ledger.lock().unwrap().record.clear();
        let lease = Lease {
            task: *number,
            ..lease(1)
        };
        trial.runner.command(RunnerCommand::Start {
            lease,
            call: Call::Execute,
            task: task(b""),
            recorded: 0,
        });
        assert_eq!(trial.next(), RunnerEvent::Started { lease });
        // Some ten seconds.
        let waits = (0..10_000).any(|_| {
            trial.runner.tasks_waiting().contains(number) || {
                std::thread::sleep(Duration::from_millis(1));
                false
            }
        });
        assert!(waits, "{number} never waited");
        trial.bench.ledger.lock().unwrap().waits.take();
        // The newest stay; on a slow machine only the last, because nobody keeps its instance for long.
        let waiting = trial.runner.tasks_waiting();
        let so_far = tasks.iter().position(|task| task == number).map(|at| &tasks[..=at]);
        assert!(
            waiting.len() <= 2 && so_far.is_some_and(|tasks| tasks.ends_with(&waiting)),
            "{waiting:?}"
        );
    }
}

#[test]
fn fuel_is_billed_once() {
    let burn = "(local.set $x (i32.const 20000)) (loop $again (br_if $again (local.tee $x (i32.sub (local.get $x) (i32.const 1)))))";
    let body = format!("{burn} {burn} {burn} (call $put (i32.const 0)) {burn} (call $sleep (i64.const 9)) {burn}");
    let trial = ready(&body);
    let fuel = |usage: &Usage| usage.fuel;
    trial.start(1, Call::Execute);
    trial.started(1);
    trial.parked(1);
    trial.wake(2);
    let in_place = fuel(&trial.ended(2).1);
    // The same, from the record: what was burned before the answer is not billed again.
    let by_record = fuel(&trial.again(3).1);
    // And one that is dropped while it waits, which has not had the part behind the wait, nor, with the first step given, what was before that.
    trial.bench.ledger.lock().unwrap().record.truncate(1);
    trial.resume(4, Call::Execute, 1);
    trial.started(4);
    trial.parked(1);
    trial.runner.command(RunnerCommand::Forget { agent: lease(4).agent });
    let (dropped, usage) = trial.evicted();
    assert_eq!(dropped, lease(4));
    let between = fuel(&usage);
    // From the beginning to the end, without a wait.
    let whole = ready(&body.replace("(call $sleep (i64.const 9))", ""));
    let all = fuel(&whole.again(1).1);
    let about = |part: Fuel, fifths: u64| part.0 * 5 > all.0 * fifths * 9 / 10 && part.0 * 5 < all.0 * fifths * 11 / 10;
    assert!(
        about(in_place, 5) && about(by_record, 1) && about(between, 1),
        "{in_place:?}, {by_record:?} and {between:?} of {all:?}"
    );
    // One that ends before its record does costs nothing.
    let ends = ready(&format!("{burn} unreachable"));
    ends.bench.ledger.lock().unwrap().record = whole.bench.ledger.lock().unwrap().record.clone();
    assert_eq!(fuel(&ends.again(1).1), Fuel(0));
}

#[test]
fn time_does_not_count_while_an_attempt_waits() {
    let trial = Trial::new();
    let short = Effective {
        limits: effective(|limits| limits.deadline = Millis(400)).limits,
        ..granted()
    };
    trial.warm(&agent(WAITS), 1, short).unwrap();
    trial.start(1, Call::Execute);
    trial.started(1);
    trial.parked(1);
    std::thread::sleep(Duration::from_millis(500));
    trial.wake(2);
    trial.parked(1);
    std::thread::sleep(Duration::from_millis(500));
    trial.wake(3);
    let left = trial.ended(3);
    assert_eq!(noted(&left), SEEN);
    assert!(left.1.wall < Millis(400), "{:?}", left.1);
    assert_eq!(BEGAN, Time(1_000));
}

#[test]
fn replayed_calls_are_not_metered() {
    let many = "(local.set $x (i32.const 60)) (loop $again (drop (call $heartbeat_beat (i32.const 0) (i32.const 0)))
        (br_if $again (local.tee $x (i32.sub (local.get $x) (i32.const 1))))) (call $put (i32.const 0))";
    let trial = ready(many);
    trial.again(1);
    let slow = |rate| Effective {
        limits: effective(|limits| limits.hostcalls_per_second = rate).limits,
        ..granted()
    };
    trial.warm(&agent(many), 1, slow(10)).unwrap();
    assert_eq!(noted(&trial.again(2)), [0, 1]);
    trial.bench.ledger.lock().unwrap().record.clear();
    assert!(matches!(
        trial.again(3).0,
        End::Stopped {
            reason: Reason::RateLimited,
            ..
        }
    ));
}

#[test]
fn a_runner_that_stops_drops_what_waits() {
    let trial = ready(WAITS);
    trial.start(1, Call::Execute);
    trial.started(1);
    trial.parked(1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(trial.runner.stop());
    assert_eq!(trial.runner.waiting(), 0);
}
