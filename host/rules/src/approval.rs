//! Approvals: what a person is asked, bound to exactly what it would allow, and what was decided. A record is addressed by its id alone. How it moves
//! a task is `decide::approval`'s to say.

use std::{collections::BTreeMap, fmt};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::{
    id::{ApprovalId, CrewId, Digest, TaskId},
    limits::{
        APPROVAL_LIFE, MAX_ACTION_BYTES, MAX_APPROVAL_BYTES, MAX_APPROVAL_ITEMS, MAX_APPROVAL_LIFE, MAX_ESCALATIONS,
        MAX_TEXT_BYTES, MIN_APPROVAL_LIFE,
    },
    quantity::{Millis, Time},
    state::encode,
};

/// Where a task waits for a person's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Point {
    /// Before its first attempt.
    #[n(0)]
    Before,
    /// When its result is there, and checked where it is to be.
    #[n(1)]
    After,
    /// Before something that its agent is about to do.
    #[n(2)]
    Action,
    /// Where its agent cannot go on without an answer.
    #[n(3)]
    Blocker,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Point::Before => "before",
            Point::After => "after",
            Point::Action => "action",
            Point::Blocker => "blocker",
        })
    }
}

/// What becomes of an approval that nobody has decided in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum OnTimeout {
    /// It is not given.
    #[default]
    #[n(0)]
    Reject,
    /// It is put to people once more, for the same time again, and not given then.
    #[n(1)]
    Escalate,
}

/// How long a person has, and what then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Terms {
    /// [`MIN_APPROVAL_LIFE`] to [`MAX_APPROVAL_LIFE`]; [`APPROVAL_LIFE`] when absent.
    #[n(0)]
    pub expires: Option<Millis>,
    /// And then?
    #[n(1)]
    pub on_timeout: OnTimeout,
}

impl Terms {
    /// Whether the time is within its bounds.
    #[must_use]
    pub fn fit(&self) -> bool {
        self.expires
            .is_none_or(|expires| (MIN_APPROVAL_LIFE..=MAX_APPROVAL_LIFE).contains(&expires))
    }

    /// How long a person has.
    #[must_use]
    pub fn life(&self) -> Millis {
        self.expires.unwrap_or(APPROVAL_LIFE)
    }
}

/// Where a task is not to go on without a person's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Points {
    /// Under which id it is asked before the first attempt.
    #[n(0)]
    pub before: Option<ApprovalId>,
    /// Under which id it is asked before the result counts.
    #[n(1)]
    pub after: Option<ApprovalId>,
    /// For each of them.
    #[n(2)]
    pub terms: Terms,
}

impl Points {
    /// All but the ids.
    pub(crate) fn shape(self) -> (bool, bool, Terms) {
        (self.before.is_some(), self.after.is_some(), self.terms)
    }
}

/// The approval that a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Asks {
    /// Which.
    #[n(0)]
    pub approval: ApprovalId,
    /// Where.
    #[n(1)]
    pub point: Point,
    /// Until when.
    #[n(2)]
    pub until: Time,
}

/// One thing that may be done or not, apart from the others.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Item {
    /// Unique in its approval.
    #[n(0)]
    pub name: String,
    /// With what: canonical JSON, or what was given where that is none.
    #[n(1)]
    pub arguments: String,
    /// Whether they are JSON. What is not is never covered by an earlier decision.
    #[n(2)]
    pub parsed: bool,
}

impl Item {
    /// An item whose arguments are brought into their canonical form, if they have one.
    #[must_use]
    pub fn new(name: String, arguments: String) -> Self {
        match canonical(&arguments) {
            Some(arguments) => Item {
                name,
                arguments,
                parsed: true,
            },
            None => Item {
                name,
                arguments,
                parsed: false,
            },
        }
    }
}

/// What was decided about an item.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// It may be done.
    #[n(0)]
    pub approved: bool,
    /// The principal; none where the time was up.
    #[n(1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What the principal said: for a blocker, the answer.
    #[n(2)]
    pub remark: String,
    /// When.
    #[n(3)]
    pub at: Time,
    /// The same action may be done for the rest of the run.
    #[n(4)]
    pub always: bool,
}

/// How an approval is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Settled {
    /// Everything is decided.
    #[n(0)]
    Decided,
    /// Nobody has decided everything in time.
    #[n(1)]
    Expired,
    /// The task ended before.
    #[n(2)]
    Withdrawn,
}

/// What a person is asked, and has decided. What is asked never changes: another question is another record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Approval {
    /// Its id, drawn at random.
    #[n(0)]
    pub id: ApprovalId,
    /// Whose.
    #[n(1)]
    pub task: TaskId,
    /// In which crew.
    #[n(2)]
    pub crew: CrewId,
    /// Where the task waits.
    #[n(3)]
    pub point: Point,
    /// What would be done; empty for a blocker.
    #[n(4)]
    pub action: String,
    /// For the person who decides.
    #[n(5)]
    pub question: String,
    /// To what it would be done, in the order of the request; 1 to [`MAX_APPROVAL_ITEMS`].
    #[n(6)]
    pub items: Vec<Item>,
    /// What asks, or has made the result; none before the first attempt.
    #[n(7)]
    pub component: Option<Digest>,
    /// What a decision is bound to: see [`Approval::binding`].
    #[n(8)]
    pub digest: Digest,
    /// The principal who wants it: the agent, or the submitter of the task.
    #[n(9)]
    pub requester: String,
    /// The crew's policy lets the requester decide.
    #[n(10)]
    pub by_requester: bool,
    /// When it was asked.
    #[n(11)]
    pub asked: Time,
    /// Until when it can be decided.
    #[n(12)]
    pub until: Time,
    /// How long a person has, and what then.
    #[n(13)]
    pub terms: Terms,
    /// How often it was put to people once more.
    #[n(14)]
    pub escalated: u32,
    /// What was decided, by the place of the item.
    #[n(15)]
    pub verdicts: BTreeMap<u32, Verdict>,
    /// How it is over, and when; none while it is open.
    #[n(16)]
    pub settled: Option<(Settled, Time)>,
}

impl Approval {
    /// What a decision is bound to: SHA-256 of the task, the point, what is asked with its arguments in canonical form, and the component.
    #[must_use]
    pub fn binding(&self) -> Digest {
        let what = (self.task, self.point, &self.action, &self.question);
        Digest::of(&encode(&("skep-approval 1", what, &self.items, self.component)))
    }

    /// Items that nobody has decided.
    pub fn open(&self) -> impl Iterator<Item = u32> + '_ {
        (0..)
            .zip(&self.items)
            .map(|(at, _)| at)
            .filter(|at| !self.verdicts.contains_key(at))
    }

    /// The items, each with what was decided.
    pub fn decided(&self) -> impl Iterator<Item = (&Item, Option<&Verdict>)> {
        (0..).zip(&self.items).map(|(at, item)| (item, self.verdicts.get(&at)))
    }

    /// Whether it is put to people once more when its time is up.
    #[must_use]
    pub fn escalates(&self) -> bool {
        self.terms.on_timeout == OnTimeout::Escalate && self.escalated < MAX_ESCALATIONS
    }
}

/// What a person says about the items of an approval.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ruling {
    /// Which; every item that is not decided otherwise when empty.
    #[n(0)]
    pub items: Vec<String>,
    /// They may be done.
    #[n(1)]
    pub approved: bool,
    /// For the agent and the record; at most [`MAX_TEXT_BYTES`].
    #[n(2)]
    pub remark: String,
    /// The same action may be done for the rest of the run.
    #[n(3)]
    pub always: bool,
    /// The digest of what the person has seen.
    #[n(4)]
    pub digest: Option<Digest>,
}

/// What an agent asks a person to allow.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Request {
    /// What would be done.
    #[n(0)]
    pub action: String,
    /// For the person who decides.
    #[n(1)]
    pub question: String,
    /// To what.
    #[n(2)]
    pub items: Vec<Item>,
    /// How long a person has, and what then.
    #[n(3)]
    pub terms: Terms,
}

impl Request {
    /// Whether every bound holds: one to [`MAX_APPROVAL_ITEMS`] items of different names, texts that are not too long.
    #[must_use]
    pub fn fits(&self) -> bool {
        let bytes: usize = self
            .items
            .iter()
            .map(|item| item.name.len() + item.arguments.len())
            .sum();
        let mut names: Vec<&str> = self.items.iter().map(|item| item.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        is_short(&self.action)
            && self.question.len() <= MAX_TEXT_BYTES
            && (1..=MAX_APPROVAL_ITEMS).contains(&self.items.len())
            && names.len() == self.items.len()
            && names.into_iter().all(is_short)
            && bytes <= MAX_APPROVAL_BYTES
            && self.terms.fit()
    }
}

/// Whether a text can name an action or an item: people read it on one line.
fn is_short(text: &str) -> bool {
    (1..=MAX_ACTION_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A JSON document in canonical form: the keys of objects in order, no spaces, numbers as RFC 8785 reads them. `None` where it is no JSON or an
/// object of it names a key twice, so that readers could differ about what it says.
#[must_use]
pub fn canonical(text: &str) -> Option<String> {
    serde_json::from_str::<Unambiguous>(text)
        .ok()
        .map(|value| value.0.to_string())
}

/// A JSON value none of whose objects names a key twice.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Unambiguous)
    }
}

struct Reader;

impl<'de> de::Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unambiguous(value)) = access.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, Unambiguous(value))) = access.next_entry::<String, _>()? {
            if map.insert(key, value).is_some() {
                return Err(de::Error::custom("a key comes twice"));
            }
        }
        // Out of a sorted map, whatever kind of map the value keeps.
        Ok(Value::Object(map.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_say_the_same_are_the_same_and_what_could_be_read_two_ways_is_none() {
        let cases = [
            (
                r#" {"b": 1, "a": [true, null, "x"]} "#,
                Some(r#"{"a":[true,null,"x"],"b":1}"#),
            ),
            (r#"{"a":[true,null,"x"],"b":1}"#, Some(r#"{"a":[true,null,"x"],"b":1}"#)),
            ("\"\\u0061\"", Some("\"a\"")),
            ("18446744073709551615", Some("18446744073709551615")),
            ("-1", Some("-1")),
            ("1.50", Some("1.5")),
            (r#"{"a": 1, "a": 2}"#, None),
            (r#"[{"x": {"a": 1, "\u0061": 2}}]"#, None),
            ("", None),
            ("{", None),
            ("{} {}", None),
            ("rm -rf /", None),
            ("1e999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(canonical(text).as_deref(), expected, "{text}");
        }
        assert_eq!(canonical(&"[".repeat(100_000)), None, "nothing nests without end");
    }

    fn request(change: impl FnOnce(&mut Request)) -> bool {
        let mut request = Request {
            action: "a".repeat(MAX_ACTION_BYTES),
            question: "q".repeat(MAX_TEXT_BYTES),
            items: vec![Item::new("one".into(), "{}".into())],
            terms: Terms {
                expires: Some(MAX_APPROVAL_LIFE),
                on_timeout: OnTimeout::Escalate,
            },
        };
        change(&mut request);
        request.fits()
    }

    #[test]
    fn a_request_has_its_bounds() {
        let item = |name: &str, bytes: usize| Item::new(name.into(), "x".repeat(bytes));
        assert!(request(|_| {}));
        assert!(request(
            |request| request.items = vec![item("a", MAX_APPROVAL_BYTES - 1)]
        ));
        assert!(request(
            |request| request.items = (0..MAX_APPROVAL_ITEMS).map(|n| item(&n.to_string(), 1)).collect()
        ));
        assert!(request(|request| request.terms.expires = Some(MIN_APPROVAL_LIFE)));
        let cases: [(&str, &dyn Fn(&mut Request)); 12] = [
            ("no action", &|request| request.action.clear()),
            ("a long action", &|request| request.action.push('a')),
            ("a control character", &|request| request.action = "a\u{1b}[2J".into()),
            ("a long question", &|request| request.question.push('q')),
            ("nothing", &|request| request.items.clear()),
            ("too much", &|request| {
                request.items = (0..=MAX_APPROVAL_ITEMS).map(|n| item(&n.to_string(), 1)).collect();
            }),
            ("the same twice", &|request| {
                request.items = vec![item("a", 1), item("b", 1), item("a", 2)];
            }),
            ("a name of nothing", &|request| request.items = vec![item("", 1)]),
            ("two lines", &|request| request.items = vec![item("a\nb", 1)]),
            ("large arguments", &|request| {
                request.items = vec![item("a", MAX_APPROVAL_BYTES)];
            }),
            ("no time", &|request| {
                request.terms.expires = Some(Millis(MIN_APPROVAL_LIFE.0 - 1));
            }),
            ("all the time", &|request| {
                request.terms.expires = Some(Millis(MAX_APPROVAL_LIFE.0 + 1));
            }),
        ];
        for (what, change) in cases {
            assert!(!request(change), "{what}");
        }
    }
}
