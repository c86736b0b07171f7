//! A task as an attempt sees it.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Dependency, Payload, Task, payload};

impl Task {
    /// A first attempt with nothing but a description and an inline input: what a unit test starts from.
    ///
    /// # Errors
    /// As [`Payload::json`].
    pub fn new<T: Serialize + ?Sized>(description: impl Into<String>, input: &T) -> Result<Task, payload::Error> {
        Ok(Task {
            id: "task_0".into(),
            attempt: 1,
            description: description.into(),
            input: Payload::json(input)?,
            dependencies: Vec::new(),
            facts: None,
            remarks: Vec::new(),
        })
    }

    /// The input, as inline JSON. Use `artifacts::parse(&task.input)` where it may be a reference.
    ///
    /// # Errors
    /// The input is a reference, or not JSON of this shape. As a [`Failure`](crate::Failure) it is never tried again.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, payload::Error> {
        self.input.parse_as("the input")
    }

    /// The dependency of that name in the plan.
    pub fn dependency(&self, name: &str) -> Option<&Dependency> {
        self.dependencies.iter().find(|dependency| dependency.name == name)
    }

    /// What the host knows of the crew's work, for tasks that integrate a plan; `None` for all others.
    ///
    /// # Errors
    /// The facts are not of this shape.
    pub fn facts<T: DeserializeOwned>(&self) -> Result<Option<T>, payload::Error> {
        self.facts
            .as_deref()
            .map(|facts| payload::parse(facts, "the host's facts"))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ended;

    #[test]
    fn facts_and_dependencies_are_found_by_shape_and_name() {
        let mut task = Task::new("integrate", &()).unwrap();
        assert_eq!(task.facts::<Vec<u8>>().unwrap(), None);
        task.facts = Some(b"[7]".to_vec());
        assert_eq!(task.facts::<Vec<u8>>().unwrap(), Some(vec![7]));
        assert!(task.facts::<String>().is_err());

        task.dependencies.push(Dependency {
            name: "scan/1".into(),
            ended: Ended::Failed,
            output: None,
            reason: Some("trapped".into()),
        });
        assert_eq!(task.dependency("scan/1").unwrap().reason.as_deref(), Some("trapped"));
        assert!(task.dependency("scan/2").is_none());
    }
}
