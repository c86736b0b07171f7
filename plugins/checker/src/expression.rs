//! CEL expressions that are true of good outputs.

use std::collections::{BTreeSet, HashMap};

use cel::{
    Context, ExecutionError,
    common::ast::{Expr, IdedExpr},
    parser::PrattParser,
};
use serde_json::Value;
use skep_sdk::Failure;

use crate::{
    KEY,
    remark::{Remarks, shown},
};

/// The most expressions of one check, and the most bytes of one.
const MOST: usize = 64;
const MOST_BYTES: usize = 4096;
/// How deep an expression nests at most: each level takes some of the guest's stack.
const MOST_DEPTH: u16 = 48;

/// What outputs are held against, read.
pub(crate) struct Expressions<'a>(Vec<(&'a str, IdedExpr)>);

impl<'a> Expressions<'a> {
    /// Fails where one of them is none, with its place.
    pub(crate) fn read(sources: &'a [String]) -> Result<Expressions<'a>, Failure> {
        if sources.len() > MOST {
            let count = sources.len();
            return Err(Failure::never(format!(
                "/{KEY}/expressions of the input: {count} are too many (at most {MOST})"
            )));
        }
        let read = |(index, source): (usize, &'a String)| {
            let wrong = |why: String| Failure::never(format!("/{KEY}/expressions/{index} of the input: {why}"));
            if source.len() > MOST_BYTES {
                return Err(wrong(format!("it has {} bytes (at most {MOST_BYTES})", source.len())));
            }
            let expression = PrattParser::new()
                .max_recursion_depth(MOST_DEPTH)
                .parse(source)
                .map_err(|errors| {
                    wrong(match errors.errors.first() {
                        // The parser says this in the words of its own insides.
                        Some(error) if error.msg.contains("ecursion limit") => "it nests too deep".to_owned(),
                        Some(error) => format!("line {}, column {}: {}", error.pos.0, error.pos.1, error.msg),
                        None => "it is no expression".to_owned(),
                    })
                })?;
            Ok((source.as_str(), expression))
        };
        sources
            .iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Expressions)
    }

    /// Says which of them are not true, and of what values. Fails where one speaks of something that there never is.
    pub(crate) fn check(&self, known: &[(&str, Value)], remarks: &mut Remarks) -> Result<(), Failure> {
        let mut context = Context::default();
        for (name, value) in known {
            context.add_variable_from_value(*name, value_of(value));
        }
        for (index, (source, expression)) in self.0.iter().enumerate() {
            let found = match cel::Value::resolve(expression, &context) {
                Ok(cel::Value::Bool(true)) => continue,
                Ok(value) => match value.json() {
                    Ok(value) => format!("is {}", shown(&value)),
                    Err(_) => "is neither true nor false".to_owned(),
                },
                Err(ExecutionError::UndeclaredReference(name)) => {
                    return Err(Failure::never(format!(
                        "/{KEY}/expressions/{index} of the input: there is no `{name}`"
                    )));
                }
                Err(error) => format!("has no value: {}", words(&error)),
            };
            let mut places = BTreeSet::new();
            gather(expression, &mut places);
            let values: Vec<String> = places.iter().filter_map(|place| place.told(known)).collect();
            let values = match values.as_slice() {
                [] => String::new(),
                values => format!("; {}", values.join(", ")),
            };
            remarks.add(format!("`{source}` {found}{values}"));
        }
        Ok(())
    }
}

/// A value that an expression speaks of.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    root: String,
    /// A JSON pointer.
    pointer: String,
}

impl Place {
    fn told(&self, known: &[(&str, Value)]) -> Option<String> {
        let (_, value) = known.iter().find(|(name, _)| *name == self.root)?;
        let Place { root, pointer } = self;
        Some(match value.pointer(pointer) {
            Some(value) => format!("{pointer} of the {root} is {}", shown(value)),
            None => format!("the {root} has no {pointer}"),
        })
    }
}

/// What an expression speaks of by names alone: `output.a.b`, wherever in it.
fn gather(expression: &IdedExpr, places: &mut BTreeSet<Place>) {
    match &expression.expr {
        Expr::Select(select) => match path(expression) {
            Some(place) => {
                places.insert(place);
            }
            None => gather(&select.operand, places),
        },
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .for_each(|part| gather(part, places)),
        Expr::Comprehension(comprehension) => gather(&comprehension.iter_range, places),
        Expr::List(list) => list.elements.iter().for_each(|part| gather(part, places)),
        _ => {}
    }
}

fn path(expression: &IdedExpr) -> Option<Place> {
    match &expression.expr {
        Expr::Ident(name) => Some(Place {
            root: name.clone(),
            pointer: String::new(),
        }),
        Expr::Select(select) => {
            let mut place = path(&select.operand)?;
            place.pointer.push('/');
            place
                .pointer
                .push_str(&select.field.replace('~', "~0").replace('/', "~1"));
            Some(place)
        }
        _ => None,
    }
}

/// A JSON value as expressions see it. Whole numbers are signed where they fit, so that they go with the numbers that expressions write.
fn value_of(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(value_of).collect::<Vec<_>>().into(),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), value_of(value)));
            members.collect::<HashMap<String, cel::Value>>().into()
        }
    }
}

/// An error without the values that the library would print whole.
fn words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(_) | ExecutionError::NoSuchOverload(_) | ExecutionError::FunctionError { .. } => {
            error.to_string()
        }
        ExecutionError::ValuesNotComparable(..) => "values of different kinds are compared".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "it divides by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        _ => "an operation does not go with its values".to_owned(),
    }
}
