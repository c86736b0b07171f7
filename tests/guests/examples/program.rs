//! An interpreter whose program is its input: a list of instructions, among them `spawn`, which gives a child a program of its own. Its result is all
//! that it has seen, told so that a run which was killed and continued tells the same as one that nobody disturbed: revisions are numbered in the
//! order in which they were first seen, children in the order of their spawning, times and random numbers are not shown. What is not shown goes into
//! the arguments of steps instead, where a host that told it differently the second time finds out; what must hold of times and revisions is checked
//! here, and a program that finds it broken fails.
//!
//! Keys belong to the run: they are written behind its `path`, which differs for every child. A key that begins with `/` is shared with all.

use std::{
    collections::BTreeMap,
    fs,
    hash::{BuildHasher as _, RandomState},
    hint::black_box,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skep_sdk::{
    Artifact, Executor, Failure, Outcome, Payload, Task, artifacts, context, heartbeat, log, state,
    tasks::{self, Answer, Child, End, Item, OnTimeout, Request},
};

/// One instruction. Revisions are named by their numbers as they are told; 0 is a key that is not there.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Act {
    Put {
        key: String,
        value: String,
    },
    Get {
        key: String,
    },
    GetRevision {
        key: String,
        revision: usize,
    },
    /// Compare and set; the newest revision that was seen when none is named.
    Cas {
        key: String,
        value: String,
        revision: Option<usize>,
    },
    Delete {
        key: String,
        revision: Option<usize>,
    },
    List {
        prefix: String,
    },
    History {
        key: String,
    },
    /// Add to a number, again when somebody else was faster. What a shared number was then is not told.
    Add {
        key: String,
        by: u64,
    },
    /// Give a child a program.
    Spawn {
        program: Vec<Act>,
        #[serde(default)]
        roles: Vec<String>,
        #[serde(default)]
        check: bool,
        #[serde(default)]
        max_retries: u32,
    },
    /// Wait for all of some children, all that were spawned when none is named. Who had ended is told where it is certain: without a timeout.
    AwaitAll {
        #[serde(default)]
        children: Vec<usize>,
        timeout: Option<u64>,
    },
    AwaitAny {
        #[serde(default)]
        children: Vec<usize>,
        timeout: Option<u64>,
    },
    /// Wait for a task by its id, the own one when none is named.
    AwaitTask {
        task: Option<String>,
    },
    /// Ask a person: the items and their arguments.
    Ask {
        action: String,
        question: Option<String>,
        items: Vec<(String, String)>,
        expires: Option<u64>,
        #[serde(default)]
        escalate: bool,
    },
    /// Ask a person for an answer.
    Block {
        question: String,
        expires: Option<u64>,
    },
    /// Sleep as a task, so many milliseconds.
    Sleep {
        ms: u64,
    },
    /// Sleep as a thread.
    Pause {
        ms: u64,
    },
    /// Read the clock so many times, and write what it said last under a key.
    Clock {
        key: String,
        #[serde(default)]
        reads: u32,
    },
    /// Draw a random number and write it under a key.
    Random {
        key: String,
    },
    /// Store a text as an artifact.
    Store {
        text: String,
    },
    /// Read an artifact of this run, by number.
    Load {
        artifact: usize,
    },
    Beat {},
    Log {
        text: String,
    },
    /// Compute.
    Burn {
        rounds: u64,
    },
    /// Write a file in `/workspace`.
    Write {
        file: String,
        text: String,
    },
    Read {
        file: String,
    },
    Loop {
        times: u32,
        program: Vec<Act>,
    },
    /// Fail, and ask to be tried again, until the attempt of this number; for ever when there is none.
    Fail {
        message: String,
        until: Option<u32>,
    },
    Trap {
        until: Option<u32>,
    },
    /// Go on as another run, which is handed what was seen.
    Continue {
        program: Vec<Act>,
    },
}

/// The input: a program, or one with what was before it.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Input {
    Program(Vec<Act>),
    Run(Run),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Run {
    program: Vec<Act>,
    /// What its keys begin with.
    #[serde(default)]
    path: String,
    #[serde(default)]
    seen: Vec<Value>,
    /// Children of the runs before: no two of a task have the same path.
    #[serde(default)]
    spawned: usize,
}

struct Program;

impl Executor for Program {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let run = match artifacts::parse(&task.input)? {
            Input::Run(run) => run,
            Input::Program(program) => Run {
                program,
                path: String::new(),
                seen: Vec::new(),
                spawned: 0,
            },
        };
        let mut machine = Machine {
            path: run.path,
            attempt: task.attempt,
            seen: run.seen,
            before: run.spawned,
            children: Vec::new(),
            revisions: BTreeMap::new(),
            artifacts: Vec::new(),
            clock: UNIX_EPOCH,
        };
        machine.run(&run.program)?;
        let told = json!({"attempt": machine.attempt, "seen": machine.seen});
        Ok(Outcome::Done(artifacts::output(&told)?))
    }
}

struct Machine {
    path: String,
    attempt: u32,
    seen: Vec<Value>,
    /// Children of the runs before.
    before: usize,
    children: Vec<String>,
    /// The revisions of each key, in the order in which they were first seen.
    revisions: BTreeMap<String, Vec<u64>>,
    artifacts: Vec<Artifact>,
    /// What the clock said last.
    clock: SystemTime,
}

impl Machine {
    fn run(&mut self, program: &[Act]) -> Result<(), Failure> {
        for act in program {
            if let Act::Loop { times, program } = act {
                for _ in 0..*times {
                    self.run(program)?;
                }
            } else {
                let seen = self.act(act)?;
                self.seen.push(seen);
            }
        }
        Ok(())
    }

    fn act(&mut self, act: &Act) -> Result<Value, Failure> {
        match act {
            Act::Put { .. }
            | Act::Get { .. }
            | Act::GetRevision { .. }
            | Act::Cas { .. }
            | Act::Delete { .. }
            | Act::List { .. }
            | Act::History { .. }
            | Act::Add { .. } => self.state(act),
            Act::Spawn { .. }
            | Act::AwaitAll { .. }
            | Act::AwaitAny { .. }
            | Act::AwaitTask { .. }
            | Act::Continue { .. } => self.tasks(act),
            Act::Ask { .. } | Act::Block { .. } => Self::people(act),
            Act::Sleep { .. } | Act::Pause { .. } | Act::Clock { .. } | Act::Random { .. } => self.world(act),
            Act::Store { text } => Ok(match artifacts::write_all("text/plain", text.as_bytes()) {
                Ok(stored) => {
                    let told = json!({"digest": stored.digest, "size": stored.size});
                    self.artifacts.push(stored);
                    told
                }
                Err(error) => refused(error.name()),
            }),
            Act::Load { artifact } => {
                let artifact = self.artifacts.get(*artifact).ok_or("no such artifact in this run")?;
                let read = artifacts::read_all(artifact);
                Ok(read.map_or_else(|error| refused(error.name()), |bytes| text(&bytes)))
            }
            Act::Beat {} => {
                heartbeat::beat(None);
                Ok(json!("beat"))
            }
            Act::Log { text } => {
                log::info(text);
                Ok(json!("logged"))
            }
            Act::Burn { rounds } => Ok(json!(burn(*rounds))),
            Act::Write { file, text } => {
                let written = fs::write(Path::new("/workspace").join(file), text);
                Ok(written.map_or_else(|error| refused(error.kind()), |()| json!("written")))
            }
            Act::Read { file } => {
                let read = fs::read(Path::new("/workspace").join(file));
                Ok(read.map_or_else(|error| refused(error.kind()), |bytes| text(&bytes)))
            }
            Act::Fail { message, until } if self.goes_wrong(*until) => Err(Failure::later(message.clone())),
            Act::Trap { until } if self.goes_wrong(*until) => Err(trap()),
            Act::Fail { .. } | Act::Trap { .. } => Ok(json!("well")),
            Act::Loop { .. } => Err("a loop is no single act".into()),
        }
    }

    fn goes_wrong(&self, until: Option<u32>) -> bool {
        until.is_none_or(|until| self.attempt < until)
    }

    fn key(&self, key: &str) -> String {
        match key.strip_prefix('/') {
            Some(shared) => shared.to_owned(),
            None => format!("{}{key}", self.path),
        }
    }

    /// The number by which a revision is told.
    fn number(&mut self, key: &str, revision: u64) -> usize {
        let known = self.revisions.entry(key.to_owned()).or_default();
        match known.iter().position(|known| *known == revision) {
            _ if revision == 0 => 0,
            Some(place) => place + 1,
            None => {
                known.push(revision);
                known.len()
            }
        }
    }

    /// The revision that a number names; one that never is for one that names none.
    fn revision(&self, key: &str, number: usize) -> u64 {
        let known = self.revisions.get(key);
        match number.checked_sub(1) {
            None => 0,
            Some(place) => known.and_then(|known| known.get(place)).copied().unwrap_or(u64::MAX),
        }
    }

    /// Tells of a key that was just written: its revision must have risen.
    fn written(&mut self, key: &str, written: Result<u64, state::Error>) -> Result<Value, Failure> {
        let revision = match written {
            Ok(revision) => revision,
            Err(error) => return Ok(self.state_refused(key, error)),
        };
        let newest = self.revisions.get(key).and_then(|known| known.iter().max());
        if newest.is_some_and(|newest| *newest >= revision) {
            return Err(format!("the revision of `{key}` fell to {revision}").into());
        }
        Ok(json!({"written": self.number(key, revision)}))
    }

    fn state_refused(&mut self, key: &str, error: state::Error) -> Value {
        match error {
            state::Error::Conflict(revision) => json!({"conflict": self.number(key, revision)}),
            state::Error::NotFound => refused("not-found"),
            state::Error::InvalidInput => refused("invalid-input"),
            state::Error::QuotaExceeded => refused("quota-exceeded"),
            state::Error::Denied => refused("denied"),
            state::Error::RecordFull => refused("record-full"),
            state::Error::Unavailable => refused("unavailable"),
        }
    }

    fn entry(&mut self, key: &str, entry: state::Entry) -> Value {
        json!({"value": text(&entry.value), "revision": self.number(key, entry.revision)})
    }

    fn state(&mut self, act: &Act) -> Result<Value, Failure> {
        Ok(match act {
            Act::Put { key, value } => {
                let key = self.key(key);
                let written = state::put(&key, value.as_bytes());
                self.written(&key, written)?
            }
            Act::Cas { key, value, revision } => {
                let key = self.key(key);
                let newest = || self.revisions.get(&key).and_then(|known| known.iter().max().copied());
                let expected = match revision {
                    Some(number) => self.revision(&key, *number),
                    None => newest().unwrap_or(0),
                };
                let written = state::compare_and_set(&key, expected, value.as_bytes());
                self.written(&key, written)?
            }
            Act::Get { key } => {
                let key = self.key(key);
                match state::get(&key) {
                    Ok(None) => Value::Null,
                    Ok(Some(entry)) => self.entry(&key, entry),
                    Err(error) => self.state_refused(&key, error),
                }
            }
            Act::GetRevision { key, revision } => {
                let key = self.key(key);
                match state::get_revision(&key, self.revision(&key, *revision)) {
                    Ok(entry) => self.entry(&key, entry),
                    Err(error) => self.state_refused(&key, error),
                }
            }
            Act::Delete { key, revision } => {
                let key = self.key(key);
                let deleted = match revision {
                    None => state::delete(&key),
                    Some(number) => state::delete_revision(&key, self.revision(&key, *number)),
                };
                match deleted {
                    Ok(there) => json!({ "deleted": there }),
                    Err(error) => self.state_refused(&key, error),
                }
            }
            Act::List { prefix } => {
                let prefix = self.key(prefix);
                match state::list(&prefix).collect::<Result<Vec<_>, _>>() {
                    Ok(keys) => keys
                        .iter()
                        .map(|key| json!([key.name.strip_prefix(&self.path), self.number(&key.name, key.revision)]))
                        .collect(),
                    Err(error) => self.state_refused(&prefix, error),
                }
            }
            Act::History { key } => {
                let key = self.key(key);
                match state::history(&key) {
                    Ok(versions) if !versions.is_sorted_by(|newer, older| newer.revision > older.revision) => {
                        return Err(format!("the history of `{key}` is out of order").into());
                    }
                    // Numbered from the oldest, as they were written.
                    Ok(versions) => versions
                        .iter()
                        .rev()
                        .map(|version| self.number(&key, version.revision))
                        .collect(),
                    Err(error) => self.state_refused(&key, error),
                }
            }
            Act::Add { key, by } => {
                let new = state::update(&self.key(key), |old: Option<u64>| old.unwrap_or(0) + by)?;
                if key.starts_with('/') {
                    json!("added")
                } else {
                    json!(new)
                }
            }
            _ => return Err("no act on the state".into()),
        })
    }

    fn tasks(&mut self, act: &Act) -> Result<Value, Failure> {
        Ok(match act {
            Act::Spawn {
                program,
                roles,
                check,
                max_retries,
            } => {
                let number = self.before + self.children.len();
                let run = Run {
                    program: program.clone(),
                    // Another attempt has other children: those of the one before may still be at work.
                    path: format!("{}{number}.{}/", self.path, self.attempt),
                    seen: Vec::new(),
                    spawned: 0,
                };
                let child = Child {
                    roles: roles.clone(),
                    check: *check,
                    retry: skep_sdk::RetryPolicy::times(*max_retries),
                    ..Child::new(format!("child {number}"), &run)?
                };
                match tasks::spawn(&child) {
                    Ok(id) => {
                        self.children.push(id);
                        json!({ "spawned": number })
                    }
                    Err(error) => refused(error.name()),
                }
            }
            Act::AwaitAll { children, timeout } => {
                let children = self.named(children)?;
                let ended = tasks::await_all(&children, timeout.map(Duration::from_millis));
                self.ended(&children, ended, timeout.is_none().then_some(children.len()))?
            }
            Act::AwaitAny { children, timeout } => {
                let children = self.named(children)?;
                let ended = tasks::await_any(&children, timeout.map(Duration::from_millis));
                if timeout.is_none() && ended.as_ref().is_ok_and(Vec::is_empty) {
                    return Err("nobody had ended, and there was no timeout".into());
                }
                self.ended(&children, ended, None)?
            }
            Act::AwaitTask { task } => {
                let task = task.clone().unwrap_or_else(|| context::current().task);
                match tasks::await_any(&[task], None) {
                    Ok(_) => json!("waited"),
                    Err(error) => refused(error.name()),
                }
            }
            Act::Continue { program } => {
                let run = Run {
                    program: program.clone(),
                    path: self.path.clone(),
                    seen: self.seen.clone(),
                    spawned: self.before + self.children.len(),
                };
                let input = Payload::json(&run)?;
                refused(tasks::continue_with_payload(&input).name())
            }
            _ => return Err("no act on tasks".into()),
        })
    }

    fn people(act: &Act) -> Result<Value, Failure> {
        Ok(match act {
            Act::Ask {
                action,
                question,
                items,
                expires,
                escalate,
            } => {
                let item = |(name, arguments): &(String, String)| Item {
                    name: name.clone(),
                    arguments: arguments.clone(),
                };
                let request = Request {
                    action: action.clone(),
                    question: question.clone().unwrap_or_else(|| format!("may it {action}?")),
                    items: items.iter().map(item).collect(),
                    expires_in: *expires,
                    on_timeout: if *escalate {
                        OnTimeout::Escalate
                    } else {
                        OnTimeout::Reject
                    },
                };
                match tasks::ask_approval(&request) {
                    Ok(decided) => decided
                        .iter()
                        .map(|decision| json!([decision.item, decision.approved, decision.remark]))
                        .collect(),
                    Err(error) => refused(error.name()),
                }
            }
            Act::Block { question, expires } => {
                match tasks::raise_blocker(question, expires.map(Duration::from_millis)) {
                    Ok(Answer::Answered(text)) => json!({ "answered": text }),
                    Ok(Answer::Declined(why)) => json!({ "declined": why }),
                    Err(error) => refused(error.name()),
                }
            }
            _ => return Err("no act on people".into()),
        })
    }

    /// The ids of children by their numbers in this run; all for none.
    fn named(&self, children: &[usize]) -> Result<Vec<String>, Failure> {
        if children.is_empty() {
            return Ok(self.children.clone());
        }
        let found = children.iter().map(|child| {
            let place = child.checked_sub(self.before);
            place.and_then(|place| self.children.get(place)).cloned()
        });
        found
            .collect::<Option<_>>()
            .ok_or_else(|| "no such child in this run".into())
    }

    /// Tells how children ended, where it is certain how many must have; checks the order of the others.
    fn ended(
        &self,
        asked: &[String],
        ended: Result<Vec<tasks::Ended>, tasks::Error>,
        certain: Option<usize>,
    ) -> Result<Value, Failure> {
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => return Ok(refused(error.name())),
        };
        let mut rest = asked.iter();
        if !ended.iter().all(|one| rest.any(|asked| *asked == one.task)) {
            return Err("the ends are not in the order asked".into());
        }
        let Some(count) = certain else {
            return Ok(json!("waited"));
        };
        if ended.len() != count {
            return Err(format!(
                "{} of {count} children had ended, and there was no timeout",
                ended.len()
            )
            .into());
        }
        let tell = |one: &tasks::Ended| -> Result<Value, Failure> {
            let place = self.children.iter().position(|child| *child == one.task);
            let end = match &one.end {
                End::Completed(output) => artifacts::parse(output)?,
                End::Failed(reason) => json!({ "failed": reason }),
                End::Cancelled => json!("cancelled"),
            };
            Ok(json!({"child": place.map(|place| self.before + place), "end": end}))
        };
        ended.iter().map(tell).collect()
    }

    fn world(&mut self, act: &Act) -> Result<Value, Failure> {
        Ok(match act {
            Act::Sleep { ms } => {
                let until = self.read_clock()? + Duration::from_millis(*ms);
                match tasks::sleep_for(Duration::from_millis(*ms)) {
                    // Natively nothing takes time.
                    Ok(()) if cfg!(target_family = "wasm") && self.read_clock()? < until => {
                        return Err("it slept too short".into());
                    }
                    Ok(()) => json!("slept"),
                    Err(error) => refused(error.name()),
                }
            }
            Act::Pause { ms } => {
                let (ms, begun) = (Duration::from_millis(*ms), instant());
                thread::sleep(ms);
                if begun.elapsed() < ms {
                    return Err("it paused too short".into());
                }
                json!("paused")
            }
            Act::Clock { key, reads } => {
                for _ in 0..*reads {
                    self.read_clock()?;
                }
                let since = self.read_clock()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                self.keep(key, &since.as_nanos().to_string())?
            }
            Act::Random { key } => self.keep(key, &RandomState::new().hash_one(0).to_string())?,
            _ => return Err("no act on the world".into()),
        })
    }

    /// Writes what is not told.
    fn keep(&mut self, key: &str, value: &str) -> Result<Value, Failure> {
        let key = self.key(key);
        let written = state::put(&key, value.as_bytes());
        self.written(&key, written)
    }

    /// The time, which must not go back.
    #[expect(clippy::disallowed_methods, reason = "the point of it")]
    fn read_clock(&mut self) -> Result<SystemTime, Failure> {
        let now = SystemTime::now();
        if now < self.clock {
            return Err("the clock went back".into());
        }
        self.clock = now;
        Ok(now)
    }
}

#[expect(clippy::disallowed_methods, reason = "the point of it")]
fn instant() -> Instant {
    Instant::now()
}

fn burn(rounds: u64) -> u64 {
    (0..rounds).fold(1, |hash: u64, round| black_box(hash.rotate_left(5) ^ round))
}

#[expect(clippy::panic, reason = "the point of it")]
fn trap() -> Failure {
    panic!("this program traps on purpose")
}

fn refused(why: impl std::fmt::Debug) -> Value {
    let why = format!("{why:?}");
    json!({ "refused": why.trim_matches('"') })
}

fn text(bytes: &[u8]) -> Value {
    json!(String::from_utf8_lossy(bytes))
}

skep_sdk::executor!(Program);

#[cfg(test)]
mod tests {
    use skep_sdk::double;

    use super::*;

    fn run_as(attempt: u32, input: &Value) -> Result<Value, Failure> {
        let task = Task {
            attempt,
            ..Task::new("program", input).unwrap()
        };
        match Program::execute(task)? {
            Outcome::Done(output) => output.parse().map_err(Failure::from),
            Outcome::Decompose(_) => Err("it decomposed".into()),
        }
    }

    fn seen(program: Value) -> Value {
        run_as(1, &program).unwrap()["seen"].clone()
    }

    #[test]
    fn revisions_are_told_by_number() {
        let program = json!([
            {"put": {"key": "a", "value": "1"}},
            {"cas": {"key": "a", "value": "2"}},
            {"cas": {"key": "a", "value": "3", "revision": 1}},
            {"cas": {"key": "b", "value": "1", "revision": 0}},
            {"delete": {"key": "a", "revision": 1}},
            {"get": {"key": "a"}},
            {"get-revision": {"key": "a", "revision": 1}},
            {"get-revision": {"key": "a", "revision": 9}},
            {"history": {"key": "a"}},
            {"list": {"prefix": ""}},
            {"delete": {"key": "a"}},
            {"get": {"key": "a"}},
            {"loop": {"times": 2, "program": [{"add": {"key": "n", "by": 2}}]}},
            {"add": {"key": "/n", "by": 2}},
            {"put": {"key": "", "value": ""}},
        ]);
        let expected = json!([
            {"written": 1}, {"written": 2}, {"conflict": 2}, {"written": 1}, {"conflict": 2},
            {"value": "2", "revision": 2}, {"value": "1", "revision": 1}, {"refused": "not-found"},
            [1, 2], [["a", 2], ["b", 1]], {"deleted": true}, null, 2, 4, "added", {"refused": "invalid-input"},
        ]);
        assert_eq!(seen(program), expected);
        // The same elsewhere: other revisions, equally told.
        let put = json!([{"put": {"key": "a", "value": "1"}}]);
        assert_eq!(seen(put.clone()), json!([{"written": 1}]));
        assert_eq!(seen(json!({"path": "x/", "program": put})), json!([{"written": 1}]));
        assert_eq!(state::get("x/a").unwrap().unwrap().value, b"1");
    }

    #[test]
    fn children_run_programs_of_their_own() {
        double::end_children(|child| {
            let ran = run_as(1, &child.input.parse().unwrap());
            Some(match ran {
                Ok(output) => End::Completed(Payload::json(&output).unwrap()),
                Err(failure) => End::Failed(failure.message),
            })
        });
        let told = seen(json!([
            {"spawn": {"program": [{"put": {"key": "k", "value": "child"}}]}},
            {"spawn": {"program": [{"fail": {"message": "no"}}]}},
            {"await-any": {}},
            {"await-all": {"children": [1], "timeout": 5}},
            {"await-all": {}},
            {"await-task": {"task": "task_foreign"}},
            {"await-task": {}},
        ]));
        let expected = json!([
            {"spawned": 0}, {"spawned": 1}, "waited", "waited",
            [{"child": 0, "end": {"attempt": 1, "seen": [{"written": 1}]}}, {"child": 1, "end": {"failed": "no"}}],
            {"refused": "not-found"}, {"refused": "not-found"},
        ]);
        assert_eq!(told, expected);
        assert_eq!(state::get("0.1/k").unwrap().unwrap().value, b"child");
        assert_eq!(seen(json!([{"await-all": {}}])), json!([{"refused": "invalid-input"}]));
    }

    #[test]
    fn people_are_asked() {
        double::decide(|request, item| request.action == "deploy" && item.name == "a");
        double::answer(|question| (question == "where?").then(|| "here".into()));
        let told = seen(json!([
            {"ask": {"action": "deploy", "items": [["a", "{}"], ["b", "{"]]}},
            {"ask": {"action": "", "items": []}},
            {"block": {"question": "where?"}},
            {"block": {"question": "why?", "expires": 5000}},
        ]));
        let expected = json!([
            [["a", true, ""], ["b", false, ""]], {"refused": "invalid-input"}, {"answered": "here"}, {"declined": ""},
        ]);
        assert_eq!(told, expected);
    }

    #[test]
    fn a_run_that_goes_on_takes_along_what_it_saw() {
        let program = json!([
            {"spawn": {"program": []}},
            {"continue": {"program": [{"spawn": {"program": []}}, {"random": {"key": "r"}}]}},
        ]);
        let next = double::continued(|| run_as(1, &program)).unwrap_err();
        let told = seen(next.parse().unwrap());
        assert_eq!(told, json!([{"spawned": 0}, {"spawned": 1}, {"written": 1}]));
    }

    #[test]
    fn the_world_is_not_told() {
        let told = seen(json!([
            {"sleep": {"ms": 5}}, {"pause": {"ms": 1}}, {"clock": {"key": "c", "reads": 300}}, {"random": {"key": "r"}},
            {"store": {"text": "stored"}}, {"load": {"artifact": 0}}, {"beat": {}}, {"log": {"text": "line"}},
            {"burn": {"rounds": 10}}, {"read": {"file": "none"}},
        ]));
        assert_eq!((&told[2], &told[3]), (&json!({"written": 1}), &json!({"written": 1})));
        assert_eq!((&told[4]["size"], &told[5]), (&json!(6), &json!("stored")));
        assert_eq!(
            (&told[8], &told[9]),
            (&json!(burn(10)), &json!({"refused": "NotFound"}))
        );
        assert_eq!(double::sleeps().len(), 1);
        assert_eq!(double::beats(), [None]);
    }

    #[test]
    fn it_goes_wrong_until_an_attempt() {
        let failing = json!([{"fail": {"message": "not yet", "until": 3}}]);
        assert_eq!(run_as(2, &failing).unwrap_err(), Failure::later("not yet"));
        assert_eq!(run_as(3, &failing).unwrap(), json!({"attempt": 3, "seen": ["well"]}));
        assert!(run_as(1, &json!([{"unknown": {}}])).is_err());
        assert!(std::panic::catch_unwind(|| run_as(1, &json!([{"trap": {}}]))).is_err());
    }
}
