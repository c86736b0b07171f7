//! How payloads travel as JSON: JSON as itself, everything else as an object with a single key that begins with `$`.

use serde_json::{Map, Value, json};
use skep_rules::plan::{Artifact, Payload};

const TEXT: &str = "$text";
const HEX: &str = "$hex";
const ARTIFACT: &str = "$artifact";

/// A payload as a client sees it: the JSON that it holds; `{"$text": …}` when it is other text; `{"$hex": …}` when it is no text;
/// `{"$artifact": {"digest", "size", "media"}}` when it is a blob. An empty payload is `null`.
#[must_use]
pub fn to_json(payload: &Payload) -> Value {
    match payload {
        Payload::Artifact(artifact) => json!({ ARTIFACT: artifact }),
        Payload::Inline(bytes) if bytes.is_empty() => Value::Null,
        Payload::Inline(bytes) => match (serde_json::from_slice::<Value>(bytes), std::str::from_utf8(bytes)) {
            (Ok(value), _) if !is_marked(&value) => value,
            (_, Ok(text)) => json!({ TEXT: text }),
            (_, Err(_)) => json!({ HEX: bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
        },
    }
}

/// The payload that a client means; the inverse of [`to_json`].
///
/// # Errors
/// What is wrong with the value under a `$` key.
pub fn from_json(value: &Value) -> Result<Payload, String> {
    let Some((key, inner)) = marked(value) else {
        return Ok(Payload::Inline(if value.is_null() {
            Vec::new()
        } else {
            value.to_string().into_bytes()
        }));
    };
    match (key, inner.as_str()) {
        (TEXT, Some(text)) => Ok(Payload::Inline(text.as_bytes().to_vec())),
        (HEX, Some(digits)) => unhex(digits).map(Payload::Inline),
        (ARTIFACT, None) => serde_json::from_value::<Artifact>(inner.clone())
            .map(Payload::Artifact)
            .map_err(|error| format!("`{ARTIFACT}`: {error}")),
        _ => Err(format!("`{key}` holds the wrong kind of value")),
    }
}

/// The key and value of an object that is not meant as itself.
fn marked(value: &Value) -> Option<(&str, &Value)> {
    let single = |object: &Map<String, Value>| object.len() == 1;
    let (key, inner) = value.as_object().filter(|object| single(object))?.iter().next()?;
    [TEXT, HEX, ARTIFACT]
        .contains(&key.as_str())
        .then_some((key.as_str(), inner))
}

fn is_marked(value: &Value) -> bool {
    marked(value).is_some()
}

fn unhex(digits: &str) -> Result<Vec<u8>, String> {
    let refuse = || format!("`{HEX}` holds an even number of hexadecimal digits");
    let digits: Option<Vec<u8>> = digits
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.ok_or_else(refuse)?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(refuse());
    }
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_survive_the_way_there_and_back() {
        let artifact = Artifact {
            digest: skep_rules::id::Digest::of(b"x"),
            size: 1,
            media: "text/html".into(),
        };
        for payload in [
            Payload::Inline(br#"{"a":[1,2]}"#.to_vec()),
            Payload::Inline(br#"{"$text":"not meant"}"#.to_vec()),
            Payload::Inline(b"plain words".to_vec()),
            Payload::Inline(vec![0xff, 0x00]),
            Payload::Inline(Vec::new()),
            Payload::Artifact(artifact),
        ] {
            assert_eq!(from_json(&to_json(&payload)), Ok(payload.clone()), "{payload:?}");
        }
    }

    #[test]
    fn a_marked_value_of_the_wrong_kind_is_refused() {
        for bad in [
            json!({"$hex": "0"}),
            json!({"$hex": "zz"}),
            json!({"$text": 1}),
            json!({"$artifact": {}}),
        ] {
            assert!(from_json(&bad).is_err(), "{bad}");
        }
    }
}
