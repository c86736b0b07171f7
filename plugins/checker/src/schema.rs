//! JSON Schemas of outputs. They are read without any way to another document, and their patterns are matched in linear time.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use skep_sdk::Failure;

use crate::{KEY, remark::Remarks};

/// What an output must be.
pub(crate) struct Schema(Validator);

impl Schema {
    /// Fails where it is no schema, with the place in it.
    pub(crate) fn read(schema: &Value) -> Result<Schema, Failure> {
        let options = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(PatternOptions::regex())
            .offline();
        let validator = options.build(schema).map_err(|error| {
            let place = error.instance_path();
            Failure::never(format!("/{KEY}/schema{place} of the input is no schema: {error}"))
        })?;
        Ok(Schema(validator))
    }

    /// Says what is wrong with an output, place by place.
    pub(crate) fn check(&self, output: &Value, remarks: &mut Remarks) {
        for error in self.0.iter_errors(output) {
            let place = match error.instance_path().as_str() {
                "" => "the output".to_owned(),
                place => format!("{place} of the output"),
            };
            remarks.add(format!(
                "{place}: {} (schema: {})",
                error.masked_with("it"),
                error.schema_path()
            ));
            if remarks.is_full() {
                return;
            }
        }
    }
}
