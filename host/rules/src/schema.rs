//! What an output will be and what an input takes: a part of JSON Schema 2020-12 that is small enough for one question to be answered always, and
//! without running anything: whether everything that one schema allows is allowed by another. A schema that says more is refused.

use std::{collections::BTreeSet, fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::limits::{MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH, MAX_SCHEMA_STEPS};

/// A schema of which every keyword is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(Value);

/// Why something is no [`Schema`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// What a value can be. `integer` is a part of `number`.
const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

/// Keywords that say nothing about a value.
const ANNOTATIONS: [&str; 4] = ["$schema", "title", "description", "default"];

impl Schema {
    /// A schema from JSON.
    ///
    /// # Errors
    /// The keyword that is not understood, or is not what it should be, and where. Too long, or too deep.
    pub fn new(value: Value) -> Result<Self, Error> {
        check(&value, "", MAX_SCHEMA_DEPTH)?;
        let schema = Schema(value);
        match schema.to_string().len() {
            0..=MAX_SCHEMA_BYTES => Ok(schema),
            more => Err(Error(format!(
                "a schema has at most {MAX_SCHEMA_BYTES} bytes, this one {more}"
            ))),
        }
    }

    /// Whether everything that another schema allows is allowed by this one. What cannot be shown is refused.
    ///
    /// # Errors
    /// Something that the other allows and this one does not, and where; or that `steps` are used up, of which every comparison takes some.
    pub fn accepts(&self, other: &Schema, steps: &mut Steps) -> Result<(), String> {
        accepts(&self.0, &other.0, "", steps)
    }

    /// Whether it allows a value.
    ///
    /// # Errors
    /// What it does not allow, and where; or that there is too much to look at.
    pub fn allows(&self, value: &Value) -> Result<(), String> {
        allows(&self.0, value, "", &mut Steps::default())
    }
}

/// Comparisons that may still be made: agents write schemas and outputs, and others wait while they are held against each other.
#[derive(Debug)]
pub struct Steps(usize);

impl Default for Steps {
    fn default() -> Self {
        Steps(MAX_SCHEMA_STEPS)
    }
}

impl Steps {
    fn take(&mut self, steps: usize) -> Result<(), String> {
        let left = self.0.checked_sub(steps);
        // Once used up they stay so: what was not told is not to be taken for a no.
        self.0 = left.unwrap_or(0);
        left.map(drop)
            .ok_or_else(|| format!("it takes more than {MAX_SCHEMA_STEPS} comparisons to tell; say less of it"))
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Schema {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_SCHEMA_BYTES {
            return Err(Error(format!(
                "a schema has at most {MAX_SCHEMA_BYTES} bytes, this one {}",
                text.len()
            )));
        }
        Schema::new(serde_json::from_str(text).map_err(|error| Error(format!("no JSON: {error}")))?)
    }
}

impl Serialize for Schema {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Schema::new(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl<C> Encode<C> for Schema {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.to_string())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Schema {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.str()?.parse().map_err(decode::Error::message)
    }
}

/// Whether a schema says only what is understood.
fn check(schema: &Value, at: &str, depth: usize) -> Result<(), Error> {
    let refuse = |what: String| match at {
        "" => Err(Error(what)),
        at => Err(Error(format!("at `{at}`: {what}"))),
    };
    let Some(depth) = depth.checked_sub(1) else {
        return refuse(format!("a schema nests at most {MAX_SCHEMA_DEPTH} deep"));
    };
    let keywords = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(keywords) => keywords,
        _ => return refuse("a schema is an object, `true` or `false`".to_owned()),
    };
    for (keyword, value) in keywords {
        match (keyword.as_str(), value) {
            ("type", Value::String(_)) | ("type", Value::Array(_)) => {
                let known = |name: &Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
                let names = value.as_array().map_or_else(|| vec![value.clone()], Clone::clone);
                if names.is_empty() || !names.iter().all(known) {
                    return refuse(format!("`type` is one or some of {}", TYPES.join(", ")));
                }
            }
            ("properties", Value::Object(of)) => {
                for (name, schema) in of {
                    check(schema, &format!("{at}/{name}"), depth)?;
                }
            }
            ("additionalProperties" | "items", schema) => check(schema, &format!("{at}/*"), depth)?,
            ("required", Value::Array(names)) if names.iter().all(Value::is_string) => {}
            ("enum", Value::Array(values)) if !values.is_empty() => {}
            ("const", _) => {}
            (name, _) if ANNOTATIONS.contains(&name) => {}
            ("type" | "properties" | "required" | "enum", _) => {
                return refuse(format!("`{keyword}` is not what it should be"));
            }
            _ => {
                let known = "type, properties, required, additionalProperties, items, enum and const";
                return refuse(format!("`{keyword}` is not understood here; {known} are"));
            }
        }
    }
    Ok(())
}

/// Where something is, for people.
fn place(at: &str, what: String) -> String {
    match at {
        "" => what,
        at => format!("at `{at}` {what}"),
    }
}

fn keyword<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.as_object().and_then(|keywords| keywords.get(name))
}

/// The types that a schema allows; `number` brings `integer` with it.
fn types(schema: &Value) -> Vec<&str> {
    let named = match keyword(schema, "type") {
        None => TYPES.to_vec(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(name) => name.as_str().into_iter().collect(),
    };
    let both = named.contains(&"number");
    let integer = both.then_some("integer").filter(|name| !named.contains(name));
    named.into_iter().chain(integer).collect()
}

/// The values that a schema lists, if it does.
fn listed(schema: &Value) -> Option<Vec<&Value>> {
    match (keyword(schema, "const"), keyword(schema, "enum")) {
        (Some(only), None) => Some(vec![only]),
        (only, Some(values)) => {
            let values = values.as_array().into_iter().flatten();
            Some(values.filter(|value| only.is_none_or(|only| only == *value)).collect())
        }
        (None, None) => None,
    }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    keyword(schema, "properties").and_then(Value::as_object)
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    let names = keyword(schema, "required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str)
}

/// What a schema says of a property.
fn property<'a>(schema: &'a Value, name: &str) -> &'a Value {
    let own = properties(schema).and_then(|properties| properties.get(name));
    own.unwrap_or_else(|| others(schema))
}

/// What a schema says of the properties that it does not name.
fn others(schema: &Value) -> &Value {
    keyword(schema, "additionalProperties").unwrap_or(&Value::Bool(true))
}

fn accepts(takes: &Value, gives: &Value, at: &str, steps: &mut Steps) -> Result<(), String> {
    steps.take(1)?;
    if *takes == Value::Bool(true) || *gives == Value::Bool(false) {
        return Ok(());
    }
    if *takes == Value::Bool(false) {
        return Err(place(at, "there may be something, and must be nothing".to_owned()));
    }
    if let Some(values) = listed(gives) {
        for value in values {
            if allows(gives, value, at, steps).is_ok() {
                allows(takes, value, at, steps)?;
            }
        }
        return steps.take(1);
    }
    if listed(takes).is_some() {
        return Err(place(at, "it may be something else than is listed".to_owned()));
    }
    let (may, must) = (types(gives), types(takes));
    if let Some(other) = may.iter().find(|name| !must.contains(name)) {
        return Err(place(
            at,
            format!("it may be {other}, and must be {}", must.join(" or ")),
        ));
    }
    if may.contains(&"array")
        && let Some(takes) = keyword(takes, "items")
    {
        let gives = keyword(gives, "items").unwrap_or(&Value::Bool(true));
        accepts(takes, gives, &format!("{at}/*"), steps)?;
    }
    if may.contains(&"object") {
        if let Some(name) = required(takes).find(|name| !required(gives).any(|given| given == *name)) {
            return Err(place(at, format!("`{name}` may be missing")));
        }
        let own = [takes, gives].into_iter().filter_map(properties);
        let names: BTreeSet<&String> = own.flat_map(Map::keys).collect();
        for name in names {
            accepts(
                property(takes, name),
                property(gives, name),
                &format!("{at}/{name}"),
                steps,
            )?;
        }
        accepts(others(takes), others(gives), &format!("{at}/*"), steps)?;
    }
    Ok(())
}

fn allows(schema: &Value, value: &Value, at: &str, steps: &mut Steps) -> Result<(), String> {
    steps.take(1)?;
    match schema {
        Value::Bool(true) => return Ok(()),
        Value::Bool(false) => return Err(place(at, "there must be nothing".to_owned())),
        _ => {}
    }
    let own = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let must = types(schema);
    if !must.contains(&own) {
        return Err(place(at, format!("it is {own}, and must be {}", must.join(" or "))));
    }
    let values = listed(schema);
    steps.take(values.as_ref().map_or(0, Vec::len))?;
    if values.is_some_and(|values| !values.contains(&value)) {
        return Err(place(at, "it is none of the values that are listed".to_owned()));
    }
    match value {
        Value::Array(items) => {
            let of = keyword(schema, "items").unwrap_or(&Value::Bool(true));
            let mut each = (0..).zip(items);
            each.try_for_each(|(index, item): (usize, _)| allows(of, item, &format!("{at}/{index}"), steps))
        }
        Value::Object(fields) => {
            if let Some(name) = required(schema).find(|name| !fields.contains_key(*name)) {
                return Err(place(at, format!("`{name}` is missing")));
            }
            let mut each = fields.iter();
            each.try_for_each(|(name, field)| allows(property(schema, name), field, &format!("{at}/{name}"), steps))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn schema(value: Value) -> Schema {
        Schema::new(value).unwrap()
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let cases = [
            (json!(1), "a schema is an object, `true` or `false`"),
            (json!({"type": "text"}), "`type` is one or some of"),
            (json!({"type": []}), "`type` is one or some of"),
            (
                json!({"properties": {"a": {"pattern": "x"}}}),
                "at `/a`: `pattern` is not understood here",
            ),
            (
                json!({"items": {"$ref": "https://example.com"}}),
                "at `/*`: `$ref` is not understood here",
            ),
            (json!({"required": "a"}), "`required` is not what it should be"),
            (json!({"enum": []}), "`enum` is not what it should be"),
        ];
        for (value, expected) in cases {
            let error = Schema::new(value).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let mut deep = json!(true);
        for _ in 0..MAX_SCHEMA_DEPTH {
            deep = json!({ "items": deep });
        }
        assert!(Schema::new(deep).unwrap_err().to_string().contains("nests at most"));
        assert!("{".parse::<Schema>().is_err());
        let long = json!({ "description": "x".repeat(MAX_SCHEMA_BYTES) });
        assert!(Schema::new(long.clone()).is_err() && long.to_string().parse::<Schema>().is_err());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let cases = [
            (
                json!({"type": "string"}),
                json!({"type": "integer"}),
                "it may be integer, and must be string",
            ),
            (
                json!({"type": "integer"}),
                json!({"type": "number"}),
                "it may be number, and must be integer",
            ),
            (
                json!({"type": "object"}),
                json!({}),
                "it may be null, and must be object",
            ),
            (
                json!({"required": ["a"]}),
                json!({"type": "object", "properties": {"a": true}}),
                "`a` may be missing",
            ),
            (
                json!({"properties": {"a": {"type": "string"}}}),
                json!({"type": "object", "properties": {"a": {"type": "null"}}}),
                "at `/a` it may be null, and must be string",
            ),
            (
                json!({"items": {"type": "string"}}),
                json!({"type": "array", "items": {"enum": ["x", 1]}}),
                "at `/*` it is integer, and must be string",
            ),
            (
                json!({"enum": [1, 2]}),
                json!({"type": "integer"}),
                "it may be something else than is listed",
            ),
            (
                json!({"const": 1}),
                json!({"enum": [1, 2]}),
                "it is none of the values that are listed",
            ),
            (
                json!({"additionalProperties": false}),
                json!({"type": "object", "properties": {"b": true}}),
                "at `/b` there may be something, and must be nothing",
            ),
            (
                json!({"additionalProperties": false}),
                json!({"type": "object"}),
                "at `/*` there may be something, and must be nothing",
            ),
        ];
        for (takes, gives, expected) in cases {
            assert_eq!(
                schema(takes)
                    .accepts(&schema(gives), &mut Steps::default())
                    .unwrap_err(),
                expected
            );
        }
    }

    #[test]
    fn what_takes_too_long_to_tell_is_refused() {
        let many: Vec<u32> = (0..900).collect();
        let of = schema(json!({"type": "array", "items": {"enum": many}}));
        assert!(of.allows(&json!(vec![899; 100])).is_ok());
        let refused = of.allows(&json!(vec![899; 100_000])).unwrap_err();
        assert!(refused.contains("comparisons"), "{refused}");
        // Named on both sides, a property is compared once: as deep as may be, that is no more than its depth.
        let deep = (2..MAX_SCHEMA_DEPTH).fold(
            json!({"type": "null"}),
            |inner, _| json!({"type": "object", "properties": {"a": inner}}),
        );
        let (deep, mut steps) = (schema(deep), Steps::default());
        assert_eq!(deep.accepts(&deep, &mut steps), Ok(()));
        assert!(steps.0 > MAX_SCHEMA_STEPS - 100, "{steps:?}");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3_i32).prop_map(Value::from),
            Just(json!(0.5)),
            "[ab]".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[ab]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn schemas() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            prop::sample::subsequence(TYPES.to_vec(), 1..4).prop_map(|names| json!({ "type": names })),
            prop::collection::vec(values(), 1..3).prop_map(|values| json!({ "enum": values })),
            values().prop_map(|value| json!({ "const": value })),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            let of = prop::collection::btree_map("[ab]", inner.clone(), 0..3);
            let names = prop::sample::subsequence(vec!["a", "b"], 0..2);
            prop_oneof![
                inner
                    .clone()
                    .prop_map(|items| json!({ "type": "array", "items": items })),
                (of, names, inner).prop_map(|(of, names, others)| {
                    json!({ "type": "object", "properties": of, "required": names, "additionalProperties": others })
                }),
            ]
        })
    }

    proptest! {
        /// The only promise: what is accepted never lets a value through that is not allowed.
        #[test]
        fn what_fits_never_surprises(takes in schemas(), gives in schemas(), value in values()) {
            let (takes, gives) = (schema(takes), schema(gives));
            if takes.accepts(&gives, &mut Steps::default()).is_ok() && gives.allows(&value).is_ok() {
                prop_assert_eq!(takes.allows(&value), Ok(()));
            }
            prop_assert_eq!(gives.accepts(&gives, &mut Steps::default()), Ok(()));
            let read: Schema = minicbor::decode(&crate::state::encode(&gives)).unwrap();
            prop_assert_eq!(read, gives);
        }
    }
}
