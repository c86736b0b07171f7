#![doc = include_str!("../README.md")]

mod assemble;
mod document;
mod draft;
mod json;
mod markdown;

use skep_sdk::{Failure, Note, Payload, Plan, Planner, Task, log};

use document::Document;

struct Documents;

impl Planner for Documents {
    fn plan(task: Task, notes: Vec<Note>) -> Result<Plan, Failure> {
        let mut documents: Vec<Document> = notes.into_iter().map(Document::of_note).collect();
        documents.extend(of_input(&task.input)?);
        let plan = assemble::plan(&documents)?;
        log::info(format!("{} tasks from {} documents", plan.nodes.len(), documents.len()));
        Ok(plan)
    }
}

skep_sdk::planner!(Documents);

/// The input, where it is a document.
fn of_input(input: &Payload) -> Result<Option<Document>, Failure> {
    let Payload::Inline(bytes) = input else {
        return Err(Failure::never(
            "the input is an artifact; give large plan documents along as notes",
        ));
    };
    let text = std::str::from_utf8(bytes).map_err(|error| Failure::never(format!("the input is no text: {error}")))?;
    let text = match serde_json::from_str(text) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Array(_)) => text.to_owned(),
        Ok(serde_json::Value::Object(object)) if object.contains_key("nodes") => text.to_owned(),
        // What else an objective says is for others.
        Ok(_) => return Ok(None),
        Err(_) => text.to_owned(),
    };
    Ok(Some(Document::of_input(text)))
}

#[cfg(test)]
mod tests;
