//! Checks outputs by what the input of their task says of them, under the key `$check`:
//!
//! ```json
//! {
//!   "topic": "bees",
//!   "$check": {
//!     "schema": {"type": "object", "required": ["pages"]},
//!     "expressions": ["output.pages > 2", "output.title.contains(input.topic)"]
//!   }
//! }
//! ```
//!
//! - `schema` is a JSON Schema 2020-12 of the output. It may refer to its own parts (`#/$defs/…`) and to nothing outside; patterns are those that are
//!   matched in linear time, without look-around.
//! - `expressions` are in [CEL](https://cel.dev), each true of a good output. They know `input` (with `$check` left out), `output`, and `dependencies`, by name:
//!   `dependencies["draft"].output`, with `ended` (`completed`, `failed` or `skipped`) and `reason` beside it.
//!
//! An output that is not so goes back with a remark that names the places in it. A schema or an expression that is none fails the check for good, because
//! no other output would mend it.
//!
//! Where the input says nothing of that, every output stands that is JSON or text and is not empty.

mod expression;
mod remark;
mod schema;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use skep_sdk::{Checker, Dependency, Ended, Failure, Payload, Task, Verdict, artifacts};

use expression::Expressions;
use remark::Remarks;
use schema::Schema;

/// The key of an input under which it says how its output is checked.
const KEY: &str = "$check";

struct Checks;

/// What an output is held against.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    schema: Option<Value>,
    #[serde(default)]
    expressions: Vec<String>,
}

impl Checker for Checks {
    fn check(task: Task, payload: Payload) -> Result<Verdict, Failure> {
        let mut input = input(&artifacts::bytes(&task.input)?)?;
        let check = input.as_object_mut().and_then(|input| input.remove(KEY));
        let output = artifacts::bytes(&payload)?;
        let Some(check) = check else {
            return Ok(verdict(something(&output).err()));
        };
        let check =
            Check::deserialize(check).map_err(|error| Failure::never(format!("/{KEY} of the input: {error}")))?;
        // Both are read before the output is looked at: a mistake in them is no fault of it.
        let schema = check.schema.as_ref().map(Schema::read).transpose()?;
        let expressions = Expressions::read(&check.expressions)?;
        let output = match serde_json::from_slice(&output) {
            Ok(output) => output,
            Err(error) => return Ok(Verdict::Rejected(format!("the output is not JSON: {error}"))),
        };
        let mut remarks = Remarks::default();
        if let Some(schema) = schema {
            schema.check(&output, &mut remarks);
        }
        if !check.expressions.is_empty() {
            let dependencies = task.dependencies.iter().map(known).collect::<Result<Map<_, _>, _>>()?;
            let known = [
                ("input", input),
                ("output", output),
                ("dependencies", Value::Object(dependencies)),
            ];
            expressions.check(&known, &mut remarks)?;
        }
        Ok(verdict(remarks.into_text()))
    }
}

skep_sdk::checker!(Checks);

fn verdict(remark: Option<String>) -> Verdict {
    remark.map_or(Verdict::Accepted, Verdict::Rejected)
}

/// The input, as expressions know it. What is no JSON says nothing of checks; what begins as an object and is none might have.
fn input(bytes: &[u8]) -> Result<Value, Failure> {
    match serde_json::from_slice(bytes) {
        Ok(input) => Ok(input),
        Err(error) if bytes.trim_ascii_start().starts_with(b"{") => {
            Err(Failure::never(format!("the input is not JSON: {error}")))
        }
        Err(_) => Ok(Value::Null),
    }
}

/// Whether an output of which nothing is said is one at all.
fn something(output: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(output).map_err(|error| {
        format!(
            "the output is neither JSON nor text: byte {} is not UTF-8",
            error.valid_up_to()
        )
    })?;
    match text.trim() {
        "" => Err("the output is empty".to_owned()),
        nothing @ ("null" | "\"\"") => Err(format!("the output is empty: {nothing}")),
        _ => Ok(()),
    }
}

/// What expressions know of a dependency.
fn known(dependency: &Dependency) -> Result<(String, Value), Failure> {
    let output = match &dependency.output {
        // What is no JSON is nothing that an expression could speak of.
        Some(output) => serde_json::from_slice(&artifacts::bytes(output)?).unwrap_or(Value::Null),
        None => Value::Null,
    };
    let ended = match dependency.ended {
        Ended::Completed => "completed",
        Ended::Failed => "failed",
        Ended::Skipped => "skipped",
    };
    let known = json!({"ended": ended, "output": output, "reason": dependency.reason});
    Ok((dependency.name.clone(), known))
}

#[cfg(test)]
mod tests;
