//! What this host trusts: who may sign what, the newest that was seen of everything, and what is revoked. Changed only by events; what may be
//! installed or run is read off here. The operator's token plays the root until a signed root is adopted; from then on only the next root
//! changes who is trusted.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::{
    id::{Digest, Name, PluginName},
    key::{KeyId, PublicKey},
    limits::CLOCK_SKEW,
    metadata::{Clock, Index, Keys, Newest, Publisher, Revocations, Root, Rotation},
    plugin::Plugin,
    quantity::Time,
    reason::Reason,
    rejection::Rejection,
    release::Release,
};

/// A publisher whose releases are taken.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Trusted {
    /// What it may sign and with which keys, as of its last rotation.
    #[n(0)]
    pub publisher: Publisher,
    /// The version of its last rotation; 0 before the first.
    #[n(1)]
    pub rotation: u64,
    /// Since when it is trusted.
    #[n(2)]
    pub since: Time,
    /// The release keys as the root or the operator last said them: a root that says the same again does not undo a rotation.
    #[n(3)]
    pub granted: Keys,
}

/// The newest release of a plugin that was ever installed here, also when it was removed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Highest {
    /// Its number.
    #[n(0)]
    pub release_seq: u64,
    /// SHA-256 of its file.
    #[n(1)]
    pub digest: Digest,
    /// SHA-256 of its statement.
    #[n(2)]
    pub statement: Digest,
}

/// The roles as the last root has them.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Roles {
    /// Of the root.
    #[n(0)]
    pub version: u64,
    /// Of the root.
    #[n(1)]
    pub expires: Time,
    /// Who signs the next root.
    #[n(2)]
    pub root: Keys,
    /// Who signs indexes.
    #[n(3)]
    pub index: Option<Keys>,
    /// Who signs clocks.
    #[n(4)]
    pub clock: Option<Keys>,
}

/// The last index.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SeenIndex {
    /// Its version.
    #[n(0)]
    pub version: u64,
    /// SHA-256 of it.
    #[n(1)]
    pub digest: Digest,
    /// Until when it counts.
    #[n(2)]
    pub expires: Time,
    /// What it says is newest.
    #[n(3)]
    pub plugins: BTreeMap<PluginName, Newest>,
}

/// The last clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct SeenClock {
    /// Its version.
    #[n(0)]
    pub version: u64,
    /// Until when it counts.
    #[n(1)]
    pub expires: Time,
    /// The index that it names.
    #[n(2)]
    pub index: Digest,
}

impl SeenClock {
    /// What is kept of a clock.
    pub(crate) fn of(clock: &Clock) -> SeenClock {
        SeenClock {
            version: clock.version,
            expires: clock.expires,
            index: clock.index,
        }
    }
}

/// What of trust is one record: the rest is a record per publisher and per plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Metadata {
    /// From the last root; none before the first.
    #[n(0)]
    pub roles: Option<Roles>,
    /// The last index, if any.
    #[n(1)]
    pub index: Option<SeenIndex>,
    /// The last clock, if any.
    #[n(2)]
    pub clock: Option<SeenClock>,
    /// Everything that was ever revoked here. Never shrinks.
    #[n(3)]
    pub revoked: Revocations,
}

/// Something to revoke.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Revocation {
    /// A key: what it signed is void unless enough others signed it too.
    #[n(0)]
    Key(#[n(0)] KeyId),
    /// A file.
    #[n(1)]
    Digest(#[n(0)] Digest),
    /// A publisher with all its keys.
    #[n(2)]
    Publisher(#[n(0)] Name),
    /// Releases of a plugin below a number.
    #[n(3)]
    Below {
        /// Which plugin.
        #[n(0)]
        plugin: PluginName,
        /// The first release that may stay.
        #[n(1)]
        minimum: u64,
    },
}

/// A statement whose signatures hold, and whose they are: what the side that computes hands to the side that decides.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Signed {
    /// What was signed.
    #[n(0)]
    pub release: Release,
    /// SHA-256 of the statement as it was signed.
    #[n(1)]
    pub statement: Digest,
    /// Keys of this host whose signatures hold.
    #[n(2)]
    pub signers: BTreeSet<KeyId>,
}

/// Everything that this host trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    pub(crate) metadata: Metadata,
    pub(crate) publishers: BTreeMap<Name, Trusted>,
    pub(crate) highest: BTreeMap<PluginName, Highest>,
    /// The latest time that any event has: a clock that was set back does not bring back what has expired.
    pub(crate) latest: Time,
}

impl Trust {
    /// Roles, index, clock and revocations.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The trusted publishers, by name.
    pub fn publishers(&self) -> impl Iterator<Item = &Trusted> {
        self.publishers.values()
    }

    /// A trusted publisher.
    #[must_use]
    pub fn publisher(&self, name: &str) -> Option<&Trusted> {
        self.publishers
            .values()
            .find(|trusted| trusted.publisher.name.as_str() == name)
    }

    /// The newest release of a plugin that was ever installed here.
    #[must_use]
    pub fn highest(&self, plugin: &PluginName) -> Option<&Highest> {
        self.highest.get(plugin)
    }

    /// The latest time seen: `now`, unless the clock was set back.
    #[must_use]
    pub fn time(&self, now: Time) -> Time {
        now.max(self.latest)
    }

    /// Every key that may sign something here: those whose signatures are worth computing.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<PublicKey> {
        let roles = self.metadata.roles.iter();
        let roles = roles.flat_map(|roles| std::iter::once(&roles.root).chain(&roles.index).chain(&roles.clock));
        let published = self.publishers.values().map(|trusted| &trusted.publisher);
        roles
            .flat_map(|keys| keys.keys.iter().copied())
            .chain(
                published
                    .clone()
                    .flat_map(|publisher| publisher.release.keys.iter().copied()),
            )
            .chain(published.filter_map(|publisher| publisher.recovery))
            .collect()
    }

    /// Whether a plugin that is installed may still run, and if not, why.
    ///
    /// # Errors
    /// [`Reason::Revoked`]: its file, its release or too many of its keys are revoked; or its publisher is trusted no longer.
    pub fn stands(&self, plugin: &Plugin) -> Result<(), Rejection> {
        let about = &plugin.manifest.plugin;
        let Some(signed) = &plugin.signed else {
            return self.unrevoked(plugin.digest, &about.name, u64::MAX);
        };
        self.unrevoked(plugin.digest, &about.name, signed.release_seq)?;
        if self.publisher(about.name.publisher()).is_none() {
            let message = format!("the publisher `{}` is trusted no longer", about.name.publisher());
            return Err(Rejection::new(Reason::Revoked, message));
        }
        let left = signed.signers.difference(&self.metadata.revoked.keys).count();
        if left < usize::try_from(signed.needed).unwrap_or(usize::MAX) {
            let message = format!("a key that signed {}@{} is revoked", about.name, about.version);
            return Err(Rejection::new(Reason::Revoked, message));
        }
        Ok(())
    }

    fn unrevoked(&self, digest: Digest, name: &PluginName, release_seq: u64) -> Result<(), Rejection> {
        let revoked = &self.metadata.revoked;
        if revoked.digests.contains(&digest) {
            return Err(Rejection::new(
                Reason::Revoked,
                format!("the file sha256:{digest} is revoked"),
            ));
        }
        match revoked.minimum.get(name) {
            Some(minimum) if release_seq < *minimum => {
                let message = format!("releases of {name} below {minimum} are revoked; this is {release_seq}");
                Err(Rejection::new(Reason::Revoked, message))
            }
            _ => Ok(()),
        }
    }

    /// What can be said of an installation before anything of the file is read: the rules for the release, with as many signatures as its
    /// publisher always needs. The installation itself asks again, with the manifest.
    ///
    /// # Errors
    /// The first rule that refuses, in the order: who, revoked, how many, when, what came before.
    pub fn may_install(&self, now: Time, signed: &Signed, downgrade: bool) -> Result<(), Rejection> {
        let publisher = self.publisher(signed.release.plugin.publisher());
        let needed = publisher.map_or(1, |trusted| trusted.publisher.release.threshold);
        self.admits(self.time(now), signed, needed, downgrade).map(drop)
    }

    /// Whether no plugin of a publisher was ever installed here, so that the first one takes its name, typed by a person.
    #[must_use]
    pub fn is_stranger(&self, publisher: &str) -> bool {
        !self.highest.keys().any(|name| name.publisher() == publisher)
    }

    /// Whether a release may be installed now, its manifest aside. `needed` signatures, `downgrade` where a person asked for an older one.
    ///
    /// Gives the publisher's own keys that signed it: no other key, though its signature holds, may keep it standing when these are revoked.
    ///
    /// # Errors
    /// The first rule that refuses, in the order: who, revoked, how many, when, what came before.
    pub(crate) fn admits(
        &self,
        now: Time,
        signed: &Signed,
        needed: u32,
        downgrade: bool,
    ) -> Result<BTreeSet<KeyId>, Rejection> {
        let release = &signed.release;
        let name = &release.plugin;
        let refuse = |reason, message: String| Err(Rejection::new(reason, message));
        let Some(trusted) = self.publisher(name.publisher()) else {
            return refuse(
                Reason::SignerUntrusted,
                format!("no key is trusted for `{}/*`", name.publisher()),
            );
        };
        let publisher = &trusted.publisher;
        if !publisher.may_sign(name) {
            return refuse(
                Reason::SignerUntrusted,
                format!("`{}` may not sign `{name}` here", publisher.name),
            );
        }
        self.unrevoked(release.component.sha256, name, release.release_seq)?;
        let own: BTreeSet<KeyId> = publisher.release.keys.iter().map(PublicKey::id).collect();
        let signers: BTreeSet<KeyId> = own.intersection(&signed.signers).copied().collect();
        if signers.is_empty() {
            let message = format!("none of the keys of `{}` signed it", publisher.name);
            return refuse(Reason::SignerUntrusted, message);
        }
        let good = self.sound(&signers);
        if good.is_empty() {
            return refuse(Reason::Revoked, format!("the key that signed {name} is revoked"));
        }
        if good.len() < usize::try_from(needed).unwrap_or(usize::MAX) {
            let message = format!(
                "{} of {needed} trusted keys of `{}` signed it",
                good.len(),
                publisher.name
            );
            return refuse(Reason::ThresholdUnmet, message);
        }
        self.fresh(now, trusted, release)?;
        self.forward(signed, downgrade)?;
        Ok(good)
    }

    /// When.
    fn fresh(&self, now: Time, trusted: &Trusted, release: &Release) -> Result<(), Rejection> {
        let late = |what: String| Err(Rejection::new(Reason::Expired, format!("{what} has expired")));
        let publisher = &trusted.publisher;
        if publisher.expires <= now {
            return late(format!("the trust in the keys of `{}`", publisher.name));
        }
        if self.metadata.roles.as_ref().is_some_and(|roles| roles.expires <= now) {
            return late("the root".to_owned());
        }
        release.current(now)?;
        let Some(index) = &self.metadata.index else {
            return Ok(());
        };
        if index.expires <= now {
            return late("the index".to_owned());
        }
        let timed = self.metadata.roles.as_ref().is_some_and(|roles| roles.clock.is_some());
        match &self.metadata.clock {
            Some(clock) if timed && clock.expires <= now => late("the clock".to_owned()),
            Some(clock) if timed && clock.index != index.digest => {
                let message = "the clock names another index than the one that is here; bring the newest of both";
                Err(Rejection::new(Reason::Expired, message))
            }
            None if timed => Err(Rejection::new(Reason::Expired, "an index is here without its clock")),
            _ => Ok(()),
        }
    }

    /// What came before.
    fn forward(&self, signed: &Signed, downgrade: bool) -> Result<(), Rejection> {
        let release = &signed.release;
        let (name, seq, digest) = (&release.plugin, release.release_seq, release.component.sha256);
        let refuse = |message: String| Err(Rejection::new(Reason::Rollback, message));
        if let Some(highest) = self.highest.get(name) {
            let known = highest.release_seq;
            if seq < known && !downgrade {
                return refuse(format!(
                    "release {seq} of {name} is older than {known}, which was installed here"
                ));
            }
            if seq == known && digest != highest.digest {
                return refuse(format!("release {seq} of {name} was seen here with another file"));
            }
            if seq.checked_sub(1) == Some(known) && release.previous != Some(highest.statement) {
                return refuse(format!(
                    "release {seq} of {name} does not follow the release {known} that was seen here"
                ));
            }
        }
        let listed = self.metadata.index.as_ref().and_then(|index| index.plugins.get(name));
        match listed {
            Some(newest) if seq < newest.release_seq && !downgrade => refuse(format!(
                "release {seq} of {name} is older than {}, which the index lists",
                newest.release_seq
            )),
            Some(newest) if seq == newest.release_seq && digest != newest.digest => {
                refuse(format!("the index lists release {seq} of {name} with another file"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a document may be adopted by its times.
    pub(crate) fn timely(&self, now: Time, what: &str, issued: Time, expires: Time) -> Result<(), Rejection> {
        if issued > now.after(CLOCK_SKEW) {
            return Err(Rejection::new(Reason::NotYetValid, format!("{what} is not valid yet")));
        }
        if expires <= now {
            return Err(Rejection::new(Reason::Expired, format!("{what} has expired")));
        }
        Ok(())
    }

    /// Whether a root may be adopted.
    pub(crate) fn admits_root(&self, now: Time, root: &Root, signers: &BTreeSet<KeyId>) -> Result<(), Rejection> {
        let signers = self.sound(signers);
        if let Some(roles) = &self.metadata.roles {
            in_turn("root", root.version, roles.version)?;
            if !roles.root.agree(&signers) {
                return Err(unsigned("the root", "the root before", &roles.root));
            }
        }
        if !root.root.agree(&signers) {
            return Err(unsigned("the root", "the root itself", &root.root));
        }
        self.timely(now, "the root", root.issued, root.expires)
    }

    /// Whether a publisher may change its keys so.
    pub(crate) fn admits_rotation(
        &self,
        now: Time,
        rotation: &Rotation,
        signers: &BTreeSet<KeyId>,
    ) -> Result<(), Rejection> {
        let Some(trusted) = self.publishers.get(&rotation.publisher) else {
            return Err(Rejection::not_found(format!(
                "trusted publisher `{}`",
                rotation.publisher
            )));
        };
        in_turn("rotation", rotation.version, trusted.rotation)?;
        if trusted.publisher.expires <= now {
            let message = format!(
                "the trust in the keys of `{}` has expired; whoever trusted them says so anew",
                rotation.publisher
            );
            return Err(Rejection::new(Reason::Expired, message));
        }
        let signers = self.sound(signers);
        let recovered = trusted
            .publisher
            .recovery
            .is_some_and(|key| signers.contains(&key.id()));
        if !recovered {
            let message = "a rotation is signed by the publisher's recovery key as well, as it is trusted here";
            return Err(Rejection::new(Reason::ThresholdUnmet, message));
        }
        if !trusted.publisher.release.agree(&signers) {
            return Err(unsigned("the rotation", "the keys before", &trusted.publisher.release));
        }
        if rotation.release.threshold < trusted.publisher.release.threshold {
            let message = format!(
                "`{}` was trusted with {} signatures; a rotation does not lower that",
                rotation.publisher, trusted.publisher.release.threshold
            );
            return Err(Rejection::new(Reason::InvalidMetadata, message));
        }
        self.unspent(
            rotation.release.keys.iter().chain([&rotation.recovery]),
            &rotation.publisher,
        )?;
        self.timely(now, "the rotation", rotation.issued, rotation.expires)
    }

    /// Whether an index may be adopted.
    pub(crate) fn admits_index(
        &self,
        now: Time,
        index: &Index,
        digest: Digest,
        signers: &BTreeSet<KeyId>,
    ) -> Result<(), Rejection> {
        self.signed_by_role("the index", |roles| roles.index.as_ref(), signers)?;
        let refuse = |message: String| Err(Rejection::new(Reason::Rollback, message));
        if let Some(seen) = &self.metadata.index {
            let same = index.version == seen.version && digest == seen.digest;
            if index.version <= seen.version && !same {
                return refuse(format!("index {} is not newer than {}", index.version, seen.version));
            }
            // A later release, or the same with the same file.
            let lost = seen.plugins.iter().find(|(name, newest)| {
                let now = index.plugins.get(*name);
                now.is_none_or(|now| now.release_seq <= newest.release_seq && now != *newest)
            });
            if let Some((name, newest)) = lost {
                return refuse(format!("it no longer lists release {} of {name}", newest.release_seq));
            }
            if index.revoked.version < self.metadata.revoked.version {
                return refuse(format!(
                    "its revocations are older than those that are here ({})",
                    self.metadata.revoked.version
                ));
            }
        }
        self.timely(now, "the index", index.issued, index.expires)
    }

    /// Whether a clock may be adopted.
    pub(crate) fn admits_clock(&self, now: Time, clock: &Clock, signers: &BTreeSet<KeyId>) -> Result<(), Rejection> {
        self.signed_by_role("the clock", |roles| roles.clock.as_ref(), signers)?;
        if let Some(seen) = &self.metadata.clock
            && clock.version <= seen.version
            && SeenClock::of(clock) != *seen
        {
            let message = format!("clock {} is not newer than {}", clock.version, seen.version);
            return Err(Rejection::new(Reason::Rollback, message));
        }
        self.timely(now, "the clock", clock.issued, clock.expires)
    }

    fn signed_by_role(
        &self,
        what: &str,
        role: impl Fn(&Roles) -> Option<&Keys>,
        signers: &BTreeSet<KeyId>,
    ) -> Result<(), Rejection> {
        match self.metadata.roles.as_ref().and_then(role) {
            None => {
                let message = format!(
                    "no root that is here names keys for {what}; adopt one first with `skep key trust --root FILE`"
                );
                Err(Rejection::new(Reason::SignerUntrusted, message))
            }
            Some(keys) if keys.agree(&self.sound(signers)) => Ok(()),
            Some(keys) => Err(unsigned(what, "the root", keys)),
        }
    }

    /// Refuses keys that are revoked or belong to another publisher.
    pub(crate) fn unspent<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a PublicKey>,
        owner: &Name,
    ) -> Result<(), Rejection> {
        for key in keys {
            if self.metadata.revoked.keys.contains(&key.id()) {
                return Err(Rejection::new(
                    Reason::Revoked,
                    format!("{} is revoked", key.id().short()),
                ));
            }
            let other = self
                .publishers
                .values()
                .map(|trusted| &trusted.publisher)
                .find(|publisher| {
                    publisher.name != *owner
                        && (publisher.release.keys.contains(key) || publisher.recovery == Some(*key))
                });
            if let Some(other) = other {
                let message = format!("{} is a key of `{}` already", key.id().short(), other.name);
                return Err(Rejection::new(Reason::Conflict, message));
            }
        }
        Ok(())
    }

    /// The keys that a revocation names, or that the publisher has whom it names.
    pub(crate) fn keys_of(&self, what: &Revocation) -> BTreeSet<KeyId> {
        match what {
            Revocation::Key(key) => [*key].into(),
            Revocation::Publisher(name) => {
                let publisher = self.publishers.get(name).map(|trusted| &trusted.publisher).into_iter();
                publisher
                    .flat_map(|publisher| publisher.release.keys.iter().chain(&publisher.recovery))
                    .map(PublicKey::id)
                    .collect()
            }
            Revocation::Digest(_) | Revocation::Below { .. } => BTreeSet::new(),
        }
    }

    /// Whether a revocation says nothing new.
    pub(crate) fn is_revoked(&self, what: &Revocation) -> bool {
        let revoked = &self.metadata.revoked;
        match what {
            Revocation::Key(key) => revoked.keys.contains(key),
            Revocation::Digest(digest) => revoked.digests.contains(digest),
            Revocation::Below { plugin, minimum } => revoked.minimum.get(plugin).is_some_and(|known| known >= minimum),
            Revocation::Publisher(_) => false,
        }
    }

    /// Whether too few of the root's keys would be left to sign the next root without these.
    pub(crate) fn would_end_root(&self, gone: &BTreeSet<KeyId>) -> bool {
        self.metadata.roles.as_ref().is_some_and(|roles| {
            let keys: BTreeSet<KeyId> = roles.root.keys.iter().map(PublicKey::id).collect();
            !gone.is_disjoint(&keys) && !roles.root.agree(&self.sound(&keys.difference(gone).copied().collect()))
        })
    }

    /// Signers without those that are revoked.
    fn sound(&self, signers: &BTreeSet<KeyId>) -> BTreeSet<KeyId> {
        signers.difference(&self.metadata.revoked.keys).copied().collect()
    }

    pub(crate) fn adopt_root(&mut self, root: &Root, at: Time) {
        let before = self.metadata.roles.take();
        let kept =
            |role: fn(&Roles) -> &Option<Keys>, now: &Option<Keys>| before.as_ref().is_some_and(|b| role(b) == now);
        // New keys of a role begin to count anew: what a thief has said with the old ones must not stand in their way.
        if !kept(|roles| &roles.index, &root.index) {
            self.metadata.index = None;
        }
        if !kept(|roles| &roles.clock, &root.clock) {
            self.metadata.clock = None;
        }
        self.metadata.roles = Some(Roles {
            version: root.version,
            expires: root.expires,
            root: root.root.clone(),
            index: root.index.clone(),
            clock: root.clock.clone(),
        });
        let known = std::mem::take(&mut self.publishers);
        for publisher in &root.publishers {
            let before = known.get(&publisher.name);
            let mut trusted = Trusted {
                publisher: publisher.clone(),
                rotation: before.map_or(0, |trusted| trusted.rotation),
                since: before.map_or(at, |trusted| trusted.since),
                granted: publisher.release.clone(),
            };
            if let Some(before) = before.filter(|before| before.rotation > 0 && before.granted == publisher.release) {
                trusted.publisher.release = before.publisher.release.clone();
                trusted.publisher.recovery = before.publisher.recovery;
            }
            self.publishers.insert(publisher.name.clone(), trusted);
        }
    }

    /// What is revoked once an index is adopted. It revokes no key of the root: whoever stole the index's keys must not keep the next root,
    /// which ends that, from being adopted.
    pub(crate) fn revoked_with(&self, index: &Index) -> Revocations {
        let mut revoked = self.metadata.revoked.clone();
        let roots = self.metadata.roles.iter().flat_map(|roles| &roles.root.keys);
        let roots: BTreeSet<KeyId> = roots.map(PublicKey::id).collect();
        revoked.version = index.revoked.version;
        revoked.keys.extend(index.revoked.keys.difference(&roots).copied());
        revoked.digests.extend(index.revoked.digests.iter().copied());
        for (plugin, minimum) in &index.revoked.minimum {
            revoked.raise(plugin, *minimum);
        }
        revoked
    }

    pub(crate) fn adopt_index(&mut self, index: &Index, digest: Digest) {
        self.metadata.revoked = self.revoked_with(index);
        self.metadata.index = Some(SeenIndex {
            version: index.version,
            digest,
            expires: index.expires,
            plugins: index.plugins.clone(),
        });
    }

    /// Remembers a revocation; `keys` are those that it ends.
    pub(crate) fn revoke(&mut self, what: &Revocation, keys: BTreeSet<KeyId>) {
        let revoked = &mut self.metadata.revoked;
        revoked.keys.extend(keys);
        match what {
            Revocation::Key(_) => {}
            Revocation::Digest(digest) => drop(revoked.digests.insert(*digest)),
            Revocation::Below { plugin, minimum } => revoked.raise(plugin, *minimum),
            Revocation::Publisher(name) => drop(self.publishers.remove(name)),
        }
    }
}

/// Whether a document is the one after the last.
fn in_turn(what: &str, version: u64, last: u64) -> Result<(), Rejection> {
    if version <= last {
        let message = format!("{what} {version} is not newer than {last}, which is here");
        return Err(Rejection::new(Reason::Rollback, message));
    }
    let next = last.saturating_add(1);
    if version > next {
        let message = format!("{what} {next} comes next, this is {version}; bring those between first");
        return Err(Rejection::new(Reason::InvalidMetadata, message));
    }
    Ok(())
}

fn unsigned(what: &str, whose: &str, keys: &Keys) -> Rejection {
    let message = format!(
        "{what} is not signed by {} of the {} keys that {whose} names",
        keys.threshold,
        keys.keys.len()
    );
    Rejection::new(Reason::ThresholdUnmet, message)
}
