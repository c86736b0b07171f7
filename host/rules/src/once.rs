//! Reads maps and sets of signed documents in which nothing may come twice: a document that says two things of one name says neither.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

struct Map<K, V>(PhantomData<(K, V)>);

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Map<K, V> {
    type Value = BTreeMap<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map without a key that comes twice")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = access.next_entry()? {
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key of a map comes twice"));
            }
        }
        Ok(map)
    }
}

struct Set<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Ord> Visitor<'de> for Set<T> {
    type Value = BTreeSet<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list in which nothing comes twice")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut set = BTreeSet::new();
        while let Some(item) = access.next_element()? {
            if !set.insert(item) {
                return Err(A::Error::custom("an item of a list comes twice"));
            }
        }
        Ok(set)
    }
}

pub(crate) fn map<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Map(PhantomData))
}

pub(crate) fn set<'de, D, T>(deserializer: D) -> Result<BTreeSet<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Ord,
{
    deserializer.deserialize_seq(Set(PhantomData))
}

#[cfg(test)]
mod tests {
    use crate::{
        metadata::{Keys, Revocations},
        release::read,
    };

    #[test]
    fn what_comes_twice_is_refused() {
        let key = format!("ed25519:{}", "00".repeat(32));
        let digest = "11".repeat(32);
        for (bad, good) in [
            (
                r#"{"minimum": {"a/b": 9, "a/b": 1}}"#.to_owned(),
                r#"{"minimum": {"a/b": 9, "a/c": 1}}"#.to_owned(),
            ),
            (
                format!(r#"{{"digests": ["{digest}", "sha256:{digest}"]}}"#),
                format!(r#"{{"digests": ["{digest}"]}}"#),
            ),
        ] {
            let parse = |text: &str| read::<Revocations>(text.as_bytes(), "it", crate::reason::Reason::InvalidMetadata);
            assert!(parse(&bad).unwrap_err().message.contains("comes twice"), "{bad}");
            assert!(parse(&good).is_ok(), "{good}");
        }
        let keys = format!(r#"{{"keys": ["{key}", "{key}"], "threshold": 1}}"#);
        assert!(serde_json::from_str::<Keys>(&keys).is_err());
    }
}
