//! The signed documents of trust: who may sign what (root), a publisher's change of its own keys (rotation), what is newest and what is revoked
//! (index), and how fresh that is (clock). After the roles of The Update Framework (TUF 1.0, sections 2.1 and 5); one document per role, in an
//! envelope of its own payload type.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    grant::Refused,
    id::{Digest, Name, PluginName},
    key::{KeyId, PublicKey},
    limits::{
        CEILING_CHILDREN, CEILING_STATE, MAX_INDEX_LIFE, MAX_KEYS, MAX_PUBLISHERS, MAX_RELEASE_LIFE, MAX_REVOCATIONS,
        MAX_ROOT_LIFE, Tier,
    },
    manifest::Access,
    quantity::{Size, Time},
    reason::Reason,
    release::{FORMAT, read},
};

/// A document that is signed as it is.
pub trait Document: Serialize + DeserializeOwned {
    /// The payload type of its envelope.
    const PAYLOAD_TYPE: &'static str;
    /// What people call it.
    const NAME: &'static str;

    /// What is wrong with it on its own account, if anything.
    fn fault(&self) -> Option<String>;

    /// Reads it.
    ///
    /// # Errors
    /// [`Reason::InvalidMetadata`]: not JSON of this shape, an unknown key, another format, a bound passed, a time that cannot be.
    fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let document: Self = read(bytes, Self::NAME, Reason::InvalidMetadata)?;
        match document.fault() {
            None => Ok(document),
            Some(fault) => Err(Refused {
                reason: Reason::InvalidMetadata,
                message: format!("{}: {fault}", Self::NAME),
            }),
        }
    }

    /// The bytes to be signed.
    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a document has only texts, numbers, lists and maps with text keys")
    }
}

/// The keys of a role and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The keys.
    #[n(0)]
    #[serde(deserialize_with = "crate::once::set")]
    pub keys: BTreeSet<PublicKey>,
    /// At least 1, at most as many as there are keys.
    #[n(1)]
    pub threshold: u32,
}

impl Keys {
    /// Whether enough of its keys are among those that signed.
    #[must_use]
    pub fn agree(&self, signers: &BTreeSet<KeyId>) -> bool {
        let signed = self.keys.iter().filter(|key| signers.contains(&key.id())).count();
        self.threshold > 0 && signed >= usize::try_from(self.threshold).unwrap_or(usize::MAX)
    }

    fn fault(&self, what: &str) -> Option<String> {
        let count = self.keys.len();
        let threshold = usize::try_from(self.threshold).unwrap_or(usize::MAX);
        if count == 0 || count > MAX_KEYS {
            return Some(format!("`{what}` has {count} keys; 1 to {MAX_KEYS} are possible"));
        }
        (threshold == 0 || threshold > count).then(|| format!("`{what}` wants {threshold} signatures of {count} keys"))
    }
}

/// What a publisher may sign, and with which keys: an entry of the root, or what the operator of a host says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Publisher {
    /// The first half of its plugins' names.
    #[n(0)]
    pub name: Name,
    /// Its release keys.
    #[n(1)]
    pub release: Keys,
    /// Its offline key: together with a release key it changes the keys.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<PublicKey>,
    /// The second halves of the names that it may sign; all when absent.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugins: Option<BTreeSet<Name>>,
    /// The most that its plugins may want.
    #[n(4)]
    #[serde(default)]
    pub ceiling: Ceiling,
    /// Its keys sign nothing that is installed after; milliseconds since 1970.
    #[n(5)]
    pub expires: Time,
}

impl Publisher {
    /// Whether it may sign releases of a plugin.
    #[must_use]
    pub fn may_sign(&self, plugin: &PluginName) -> bool {
        plugin.publisher() == self.name.as_str()
            && self
                .plugins
                .as_ref()
                .is_none_or(|plugins| plugins.iter().any(|name| name.as_str() == plugin.plugin()))
    }

    /// What is wrong with it on its own account, if anything.
    pub(crate) fn fault(&self) -> Option<String> {
        let name = &self.name;
        if let Some(fault) = self.release.fault("release") {
            return Some(format!("publisher `{name}`: {fault}"));
        }
        if self.recovery.is_some_and(|key| self.release.keys.contains(&key)) {
            return Some(format!(
                "publisher `{name}`: the recovery key is one of its release keys"
            ));
        }
        let plugins = self.plugins.as_ref().map_or(1, BTreeSet::len);
        (plugins == 0 || plugins > MAX_PUBLISHERS).then(|| format!("publisher `{name}` may sign {plugins} names"))
    }
}

/// The most that the plugins of a publisher may want.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ceiling {
    /// The largest tier.
    #[n(0)]
    pub tier: Tier,
    /// What it may do with mounts; no mounts at all when absent.
    #[n(1)]
    pub files: Option<Access>,
    /// Bytes of `/workspace`.
    #[n(2)]
    pub workspace: Size,
    /// Bytes of artifacts per attempt.
    #[n(3)]
    pub artifacts: Size,
    /// Whether it may want to speak HTTP to hosts that it names.
    #[n(4)]
    pub http: bool,
    /// The quota of the crew's state. What was agreed to before there was one did not hold it, and so is zero: reading only.
    #[n(5)]
    #[cbor(default)]
    pub state: Size,
    /// Children of one run of a task; what was agreed to before is zero: waiting only.
    #[n(6)]
    #[cbor(default)]
    pub children: u32,
}

impl Default for Ceiling {
    /// What most plugins need: the default tier, reading mounts, scratch files and artifacts within that tier, named HTTP hosts, some state and some
    /// children.
    fn default() -> Self {
        Ceiling {
            tier: Tier::Medium,
            files: Some(Access::Read),
            workspace: Tier::Medium.limits().workspace,
            artifacts: Tier::Medium.limits().workspace,
            http: true,
            state: CEILING_STATE,
            children: CEILING_CHILDREN,
        }
    }
}

/// Who may sign what. The next version is signed by enough keys of this one and of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Root {
    /// [`FORMAT`].
    #[n(0)]
    pub format: u32,
    /// Each is one more than the last.
    #[n(1)]
    pub version: u64,
    /// When it was made.
    #[n(2)]
    pub issued: Time,
    /// At most a year later.
    #[n(3)]
    pub expires: Time,
    /// Sign the next root.
    #[n(4)]
    pub root: Keys,
    /// Sign indexes.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Keys>,
    /// Sign clocks.
    #[n(6)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Keys>,
    /// Everyone who is trusted; whoever is not listed is not.
    #[n(7)]
    pub publishers: Vec<Publisher>,
}

impl Document for Root {
    const PAYLOAD_TYPE: &'static str = "application/vnd.skep.root+json";
    const NAME: &'static str = "the root";

    fn fault(&self) -> Option<String> {
        let long = || {
            let mut publishers = self.publishers.iter();
            let long = publishers.find(|publisher| publisher.expires.since(self.issued) > MAX_RELEASE_LIFE)?;
            Some(format!(
                "the trust in `{}` lasts longer than {MAX_RELEASE_LIFE}",
                long.name
            ))
        };
        let twice = || {
            let mut seen = BTreeSet::new();
            let twice = self.publishers.iter().find(|publisher| !seen.insert(&publisher.name))?;
            Some(format!("the publisher `{}` is there twice", twice.name))
        };
        if self.publishers.len() > MAX_PUBLISHERS {
            return Some(format!("at most {MAX_PUBLISHERS} publishers"));
        }
        common(self.format, self.version, self.issued, self.expires, MAX_ROOT_LIFE)
            .or_else(|| self.root.fault("root"))
            .or_else(|| self.index.as_ref().and_then(|keys| keys.fault("index")))
            .or_else(|| self.clock.as_ref().and_then(|keys| keys.fault("clock")))
            .or_else(|| self.publishers.iter().find_map(Publisher::fault))
            .or_else(twice)
            .or_else(long)
    }
}

/// A publisher's change of its own keys: signed by enough of its release keys of before and by its recovery key, so that who stole one of
/// them cannot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rotation {
    /// [`FORMAT`].
    #[n(0)]
    pub format: u32,
    /// Whose.
    #[n(1)]
    pub publisher: Name,
    /// Each is one more than the last; the first is 1.
    #[n(2)]
    pub version: u64,
    /// When it was made.
    #[n(3)]
    pub issued: Time,
    /// When the new keys end, at most 400 days later; never after the trust in the publisher, which only whoever trusted it prolongs.
    #[n(4)]
    pub expires: Time,
    /// The release keys from now on.
    #[n(5)]
    pub release: Keys,
    /// The recovery key from now on.
    #[n(6)]
    pub recovery: PublicKey,
}

impl Document for Rotation {
    const PAYLOAD_TYPE: &'static str = "application/vnd.skep.rotation+json";
    const NAME: &'static str = "the rotation";

    fn fault(&self) -> Option<String> {
        let same = self.release.keys.contains(&self.recovery);
        common(self.format, self.version, self.issued, self.expires, MAX_RELEASE_LIFE)
            .or_else(|| self.release.fault("release"))
            .or_else(|| same.then(|| "the recovery key is one of the release keys".to_owned()))
    }
}

/// The newest release of each plugin, and what is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Index {
    /// [`FORMAT`].
    #[n(0)]
    pub format: u32,
    /// Rises with every index.
    #[n(1)]
    pub version: u64,
    /// When it was made.
    #[n(2)]
    pub issued: Time,
    /// At most 7 days later.
    #[n(3)]
    pub expires: Time,
    /// The newest release of each plugin.
    #[n(4)]
    #[serde(deserialize_with = "crate::once::map")]
    pub plugins: BTreeMap<PluginName, Newest>,
    /// What is revoked; it only grows.
    #[n(5)]
    pub revoked: Revocations,
}

/// The newest release of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Newest {
    /// Its number.
    #[n(0)]
    pub release_seq: u64,
    /// SHA-256 of its file.
    #[n(1)]
    pub digest: Digest,
}

/// What must not run, whoever signed it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revocations {
    /// Rises with every change.
    #[n(0)]
    pub version: u64,
    /// Keys: whatever they signed is void, also where others signed as well and too few are left.
    #[n(1)]
    #[serde(deserialize_with = "crate::once::set")]
    pub keys: BTreeSet<KeyId>,
    /// Files.
    #[n(2)]
    #[serde(deserialize_with = "crate::once::set")]
    pub digests: BTreeSet<Digest>,
    /// Releases of a plugin below this number.
    #[n(3)]
    #[serde(deserialize_with = "crate::once::map")]
    pub minimum: BTreeMap<PluginName, u64>,
}

impl Revocations {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len() + self.digests.len() + self.minimum.len()
    }

    /// Revokes the releases of a plugin below a number.
    pub(crate) fn raise(&mut self, plugin: &PluginName, minimum: u64) {
        let known = self.minimum.entry(plugin.clone()).or_default();
        *known = (*known).max(minimum);
    }
}

impl Document for Index {
    const PAYLOAD_TYPE: &'static str = "application/vnd.skep.index+json";
    const NAME: &'static str = "the index";

    fn fault(&self) -> Option<String> {
        let many = self.plugins.len() > crate::limits::MAX_PLUGINS || self.revoked.count() > MAX_REVOCATIONS;
        common(self.format, self.version, self.issued, self.expires, MAX_INDEX_LIFE)
            .or_else(|| many.then(|| "it holds too many plugins or revocations".to_owned()))
    }
}

/// Which index is the newest at a time: what stands against an index that is shown for too long.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Clock {
    /// [`FORMAT`].
    #[n(0)]
    pub format: u32,
    /// Rises with every clock.
    #[n(1)]
    pub version: u64,
    /// When it was made.
    #[n(2)]
    pub issued: Time,
    /// A day later, or up to 90 days for hosts without a network.
    #[n(3)]
    pub expires: Time,
    /// SHA-256 of the index.
    #[n(4)]
    pub index: Digest,
}

impl Document for Clock {
    const PAYLOAD_TYPE: &'static str = "application/vnd.skep.clock+json";
    const NAME: &'static str = "the clock";

    fn fault(&self) -> Option<String> {
        common(
            self.format,
            self.version,
            self.issued,
            self.expires,
            crate::limits::MAX_CLOCK_LIFE,
        )
    }
}

/// What all documents have in common.
fn common(format: u32, version: u64, issued: Time, expires: Time, life: crate::quantity::Millis) -> Option<String> {
    if format != FORMAT {
        return Some(format!(
            "`format` is {format}, not {FORMAT}; it was made for another Skep"
        ));
    }
    if version == 0 {
        return Some("`version` begins at 1".to_owned());
    }
    if expires <= issued {
        return Some("it expires before it begins".to_owned());
    }
    (expires.since(issued) > life).then(|| format!("it lasts longer than {life}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ceiling as it was before it had `state` and `children`.
    #[derive(Encode)]
    struct OldCeiling {
        #[n(0)]
        tier: Tier,
        #[n(1)]
        files: Option<Access>,
        #[n(2)]
        workspace: Size,
        #[n(3)]
        artifacts: Size,
        #[n(4)]
        http: bool,
    }

    #[test]
    fn what_was_agreed_to_before_there_was_state_does_not_hold_it() {
        let (tier, files, workspace, artifacts, http) = (Tier::Small, None, Size(1), Size(2), true);
        let old = minicbor::to_vec(OldCeiling {
            tier,
            files,
            workspace,
            artifacts,
            http,
        })
        .unwrap();
        let read: Ceiling = minicbor::decode(&old).unwrap();
        assert_eq!(
            read,
            Ceiling {
                tier,
                files,
                workspace,
                artifacts,
                http,
                state: Size(0),
                children: 0,
            }
        );
    }

    #[test]
    fn a_document_without_the_keys_says_the_default_of_each() {
        let read: Ceiling = serde_json::from_str(r#"{"tier": "small", "http": false}"#).unwrap();
        assert_eq!(
            read,
            Ceiling {
                tier: Tier::Small,
                http: false,
                ..Ceiling::default()
            }
        );
        let read: Ceiling = serde_json::from_str(r#"{"state": "1KiB", "children": 0}"#).unwrap();
        assert_eq!((read.state, read.children), (Size(1024), 0));
        assert!(serde_json::from_str::<Ceiling>(r#"{"tasks": 1}"#).is_err());
    }
}
