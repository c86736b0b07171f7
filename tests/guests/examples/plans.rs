//! Plans, executes and checks by its input, so that a test can write any tree of tasks as JSON:
//! `{"plan": [{"name", "needs", "check", "optional", "integrates", "input"}]}` decomposes, `{"answer": …}` answers, `{"fail": "…"}` fails,
//! `{"dependencies": true}` answers what it was given, and `{"refuse-below": n}` makes the checker send it back until so many remarks were made.

use serde::Deserialize;
use serde_json::{Value, json};
use skep_sdk::{
    Checker, Ended, Executor, Failure, Node, Note, Outcome, Payload, Plan, Planner, RetryPolicy, Task, Verdict,
};

#[derive(Deserialize)]
struct Step {
    name: String,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    check: bool,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    integrates: bool,
    #[serde(default)]
    retries: Option<u32>,
    #[serde(default = "worker")]
    role: String,
    input: Value,
}

fn worker() -> String {
    "worker".to_owned()
}

struct Plans;

fn plan_of(input: &Value) -> Result<Plan, Failure> {
    let steps: Vec<Step> = serde_json::from_value(input.get("plan").cloned().unwrap_or_default())?;
    let node = |step: Step| {
        Ok(Node {
            dependencies: step.needs,
            check: step.check,
            optional: step.optional,
            integrates: step.integrates,
            retry: RetryPolicy {
                max_retries: step.retries,
                ..RetryPolicy::default()
            },
            ..Node::new(&step.name, &step.name, step.role, Payload::json(&step.input)?)
        })
    };
    Ok(Plan::new(steps.into_iter().map(node).collect::<Result<_, Failure>>()?))
}

impl Planner for Plans {
    fn plan(task: Task, _notes: Vec<Note>) -> Result<Plan, Failure> {
        plan_of(&task.input()?)
    }
}

impl Executor for Plans {
    fn execute(task: Task) -> Result<Outcome, Failure> {
        let input: Value = task.input()?;
        if input.get("plan").is_some() {
            return Ok(Outcome::Decompose(plan_of(&input)?));
        }
        if let Some(message) = input.get("fail").and_then(Value::as_str) {
            return Err(Failure::never(message));
        }
        if input.get("dependencies").is_some() {
            let told = task.dependencies.iter().map(|d| {
                let output = match &d.output {
                    Some(Payload::Inline(bytes)) => serde_json::from_slice(bytes).unwrap_or_default(),
                    Some(Payload::Artifact(artifact)) => json!(artifact.digest),
                    None => Value::Null,
                };
                let ended = match d.ended {
                    Ended::Completed => "completed",
                    Ended::Failed => "failed",
                    Ended::Skipped => "skipped",
                };
                json!({"name": d.name, "ended": ended, "output": output, "reason": d.reason})
            });
            let facts: Option<Value> = task.facts()?;
            return Ok(Outcome::json(
                &json!({"dependencies": told.collect::<Vec<_>>(), "facts": facts}),
            )?);
        }
        if let Some(least) = input.get("refuse-below") {
            return Ok(Outcome::json(&json!({"least": least, "remarks": task.remarks}))?);
        }
        Ok(Outcome::json(input.get("answer").unwrap_or(&input))?)
    }
}

impl Checker for Plans {
    fn check(_task: Task, payload: Payload) -> Result<Verdict, Failure> {
        let Payload::Inline(bytes) = payload else {
            return Ok(Verdict::Accepted);
        };
        let result: Value = serde_json::from_slice(&bytes)?;
        let least = result.get("least").and_then(Value::as_u64).unwrap_or(0);
        let made = result.get("remarks").and_then(Value::as_array).map_or(0, Vec::len);
        Ok(if (made as u64) < least {
            Verdict::Rejected(format!("remark {}", made + 1))
        } else {
            Verdict::Accepted
        })
    }
}

skep_sdk::executor!(Plans);
skep_sdk::planner!(Plans);
skep_sdk::checker!(Plans);
