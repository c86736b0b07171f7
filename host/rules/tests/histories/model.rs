//! What a host must trust, told from scratch: from the list of everything that it ever accepted, read anew for each question. Nothing is
//! counted or kept on the way, so that the two ways of knowing have as little in common as they can.

use std::collections::BTreeSet;

use skep_rules::{
    command::{Command, Consent},
    id::{Digest, PluginName},
    key::KeyId,
    metadata::{Clock, Index, Keys, Publisher, Revocations, Root, Rotation},
    plugin::Plugin,
    quantity::Time,
    reason::Reason,
    release::Release,
    trust::{Revocation, Signed},
};

use crate::fixtures::id_of;

const SKEW: u64 = 300_000;
const DAY: u64 = 86_400_000;

/// What was accepted, in order, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model<'a> {
    pub(crate) accepted: &'a [(Time, Command)],
}

/// A plugin that is here, and, where it was signed, by whom and how many it took.
type Installed<'a> = (&'a Plugin, Option<(&'a Signed, BTreeSet<KeyId>, usize)>);

type Verdict = Result<(), Reason>;

/// The first rule of a list that is broken.
fn first(rules: impl IntoIterator<Item = (bool, Reason)>) -> Verdict {
    rules
        .into_iter()
        .find(|(broken, _)| *broken)
        .map_or(Ok(()), |(_, reason)| Err(reason))
}

fn enough(keys: &Keys, signers: &BTreeSet<KeyId>) -> bool {
    keys.keys.iter().filter(|key| signers.contains(&id_of(key))).count() >= keys.threshold as usize
}

/// What is wrong with the life of a document: longer than so many days, or reversed.
fn odd(issued: Time, expires: Time, days: u64) -> bool {
    expires <= issued || expires.0 - issued.0 > days * DAY
}

fn in_turn(version: u64, last: u64) -> [(bool, Reason); 2] {
    [
        (version <= last, Reason::Rollback),
        (version - last.min(version) > 1, Reason::InvalidMetadata),
    ]
}

impl<'a> Model<'a> {
    /// The same host, before the thing at a place in its past.
    fn before(self, at: usize) -> Model<'a> {
        Model {
            accepted: &self.accepted[..at],
        }
    }

    /// The places of what this picks out, the last first.
    fn latest<T>(self, pick: impl Fn(&'a Command) -> Option<T>) -> impl Iterator<Item = (usize, T)> {
        let all = self.accepted.iter().enumerate().rev();
        all.filter_map(move |(at, (_, command))| Some((at, pick(command)?)))
    }

    /// No earlier than anything that happened since time was last set right.
    pub(crate) fn time(self, now: Time) -> Time {
        let reset = |command: &&(Time, Command)| matches!(command.1, Command::ResetTime { .. });
        let from = self.accepted.iter().rposition(|it| reset(&it)).unwrap_or(0);
        self.accepted[from..]
            .iter()
            .map(|(at, _)| *at)
            .chain([now])
            .max()
            .unwrap()
    }

    pub(crate) fn root(self) -> Option<(usize, &'a Root)> {
        self.latest(|command| match command {
            Command::AdoptRoot { root, .. } => Some(root),
            _ => None,
        })
        .next()
    }

    /// Where a role was last given other keys than it had before; nothing that it said earlier counts.
    fn since(self, role: fn(&Root) -> &Option<Keys>) -> usize {
        let roots = || {
            self.latest(|command| match command {
                Command::AdoptRoot { root, .. } => Some(role(root)),
                _ => None,
            })
        };
        let changed = roots()
            .zip(roots().skip(1))
            .find(|((_, now), (_, before))| now != before);
        let first = || roots().last();
        changed.map(|(now, _)| now).or_else(first).map_or(0, |(at, _)| at)
    }

    pub(crate) fn index(self) -> Option<(&'a Index, Digest)> {
        let found = self.latest(|command| match command {
            Command::AdoptIndex { index, digest, .. } => Some((index, *digest)),
            _ => None,
        });
        let since = self.since(|root| &root.index);
        found.filter(|(at, _)| *at > since).map(|(_, it)| it).next()
    }

    pub(crate) fn clock(self) -> Option<&'a Clock> {
        let found = self.latest(|command| match command {
            Command::AdoptClock { clock, .. } => Some(clock),
            _ => None,
        });
        let since = self.since(|root| &root.clock);
        found.filter(|(at, _)| *at > since).map(|(_, it)| it).next()
    }

    /// A publisher as it is now, and the number of its last rotation: what the last root or the operator said of it, then its rotations.
    pub(crate) fn publisher(self, name: &str) -> Option<(Publisher, u64)> {
        let mut known: Option<(Publisher, u64)> = None;
        // The keys as whoever trusts it last said them.
        let mut granted: Option<Keys> = None;
        for (_, command) in self.accepted {
            let count = known.as_ref().map_or(0, |(_, count)| *count);
            match command {
                Command::TrustPublisher { publisher, .. } if publisher.name.as_str() == name => {
                    known = Some((publisher.clone(), count));
                    granted = Some(publisher.release.clone());
                }
                Command::AdoptRoot { root, .. } => {
                    let listed = root.publishers.iter().find(|it| it.name.as_str() == name);
                    let rotated = known.take().filter(|(_, count)| *count > 0).map(|(before, _)| before);
                    known = listed.map(|it| match rotated {
                        Some(before) if granted.as_ref() == Some(&it.release) => {
                            let (release, recovery) = (before.release, before.recovery);
                            (
                                Publisher {
                                    release,
                                    recovery,
                                    ..it.clone()
                                },
                                count,
                            )
                        }
                        _ => (it.clone(), count),
                    });
                    granted = listed.map(|it| it.release.clone());
                }
                Command::RotateKeys { rotation, .. } if rotation.publisher.as_str() == name => {
                    let (publisher, _) = known.expect("only a trusted publisher rotates");
                    let publisher = Publisher {
                        release: rotation.release.clone(),
                        recovery: Some(rotation.recovery),
                        expires: rotation.expires.min(publisher.expires),
                        ..publisher
                    };
                    known = Some((publisher, rotation.version));
                }
                Command::Revoke {
                    what: Revocation::Publisher(gone),
                    ..
                } if gone.as_str() == name => known = None,
                _ => {}
            }
        }
        known
    }

    pub(crate) fn publishers(self) -> Vec<Publisher> {
        let mut names = BTreeSet::new();
        for (_, command) in self.accepted {
            match command {
                Command::TrustPublisher { publisher, .. } => drop(names.insert(publisher.name.clone())),
                Command::AdoptRoot { root, .. } => names.extend(root.publishers.iter().map(|it| it.name.clone())),
                _ => {}
            }
        }
        let known = names.iter().filter_map(|name| self.publisher(name.as_str()));
        known.map(|(publisher, _)| publisher).collect()
    }

    /// Everything that anybody has said is revoked, and was heard.
    fn said_revoked(self) -> Vec<Revocations> {
        let one = |what: &Revocation, at: usize| {
            let mut it = Revocations::default();
            match what {
                Revocation::Key(key) => drop(it.keys.insert(*key)),
                Revocation::Digest(digest) => drop(it.digests.insert(*digest)),
                Revocation::Below { plugin, minimum } => drop(it.minimum.insert(plugin.clone(), *minimum)),
                Revocation::Publisher(name) => {
                    let publisher = self.before(at).publisher(name.as_str()).expect("it was trusted then").0;
                    let keys = publisher.release.keys.iter().chain(&publisher.recovery);
                    it.keys.extend(keys.map(id_of));
                    // And whatever else has signed what is here of theirs.
                    for (plugin, signed) in self.before(at).installed() {
                        if plugin.manifest.plugin.name.publisher() == name.as_str() {
                            it.keys.extend(signed.into_iter().flat_map(|(_, signers, _)| signers));
                        }
                    }
                }
            }
            it
        };
        let heard = |(at, (_, command)): (usize, &(Time, Command))| match command {
            Command::Revoke { what, .. } => Some(one(what, at)),
            Command::AdoptIndex { index, .. } => {
                let mut it = index.revoked.clone();
                let before = self.before(at);
                let (_, root) = before.root().expect("an index comes after a root");
                // An index has no say over who signs roots.
                for key in &root.root.keys {
                    it.keys.remove(&id_of(key));
                }
                Some(it)
            }
            _ => None,
        };
        self.accepted.iter().enumerate().filter_map(heard).collect()
    }

    fn is_revoked(self, key: &KeyId) -> bool {
        self.said_revoked().iter().any(|it| it.keys.contains(key))
    }

    fn sound(self, signers: &BTreeSet<KeyId>) -> BTreeSet<KeyId> {
        let said = self.said_revoked();
        let revoked = |key: &&KeyId| said.iter().any(|it| it.keys.contains(*key));
        signers.iter().filter(|key| !revoked(key)).copied().collect()
    }

    fn is_revoked_release(self, file: Digest, name: &PluginName, seq: u64) -> bool {
        let of =
            |it: &Revocations| it.digests.contains(&file) || it.minimum.get(name).is_some_and(|least| seq < *least);
        self.said_revoked().iter().any(of)
    }

    /// What was installed and not removed since, with who had to sign it and did.
    pub(crate) fn installed(self) -> Vec<Installed<'a>> {
        let mut there: Vec<Installed<'a>> = Vec::new();
        for (at, (_, command)) in self.accepted.iter().enumerate() {
            match command {
                Command::RemovePlugin { digest, .. } => there.retain(|(plugin, _)| plugin.digest != *digest),
                Command::InstallPlugin { plugin, signed, .. }
                    if !there.iter().any(|(it, _)| it.digest == plugin.digest) =>
                {
                    let signed = signed.as_ref().map(|signed| {
                        let then = self.before(at);
                        let (publisher, _) = then
                            .publisher(signed.release.plugin.publisher())
                            .expect("it was trusted");
                        let own = publisher.release.keys.iter().map(id_of).collect();
                        let signers = then.sound(&signed.signers).intersection(&own).copied().collect();
                        (signed, signers, needed(plugin, &publisher))
                    });
                    there.push((plugin, signed));
                }
                _ => {}
            }
        }
        there
    }

    /// Files that are here and must not run.
    pub(crate) fn fallen(self, installed: &[Installed<'_>]) -> BTreeSet<Digest> {
        let falls = |(plugin, signed): &&Installed<'_>| {
            let name = &plugin.manifest.plugin.name;
            let Some((signed, signers, needed)) = signed else {
                return self.is_revoked_release(plugin.digest, name, u64::MAX);
            };
            self.is_revoked_release(plugin.digest, name, signed.release.release_seq)
                || self.publisher(name.publisher()).is_none()
                || self.sound(signers).len() < *needed
        };
        installed
            .iter()
            .filter(falls)
            .map(|(plugin, _)| plugin.digest)
            .collect()
    }

    /// The highest release of a plugin that was ever installed; of those the one that came last.
    pub(crate) fn highest(self, name: &PluginName) -> Option<&'a Signed> {
        let (mut best, mut there) = (None::<&Signed>, BTreeSet::new());
        for (_, command) in self.accepted {
            match command {
                Command::RemovePlugin { digest, .. } => drop(there.remove(digest)),
                Command::InstallPlugin { plugin, signed, .. } if there.insert(plugin.digest) => {
                    let seq = |it: &Signed| it.release.release_seq;
                    if let Some(it) = signed
                        && it.release.plugin == *name
                        && best.is_none_or(|best| seq(best) <= seq(it))
                    {
                        best = Some(it);
                    }
                }
                _ => {}
            }
        }
        best
    }

    /// Whether the host must do what is asked, and if not, for which reason.
    pub(crate) fn says(self, now: Time, command: &Command) -> Verdict {
        let time = self.time(now);
        match command {
            Command::TrustPublisher { publisher, .. } => self.trusts(time, publisher),
            Command::AdoptRoot { root, signers, .. } => self.adopts_root(time, root, signers),
            Command::RotateKeys { rotation, signers, .. } => self.rotates(time, rotation, signers),
            Command::AdoptIndex {
                index, digest, signers, ..
            } => self.adopts_index(time, index, *digest, signers),
            Command::AdoptClock { clock, signers, .. } => self.adopts_clock(time, clock, signers),
            Command::Revoke {
                what: Revocation::Publisher(name),
                ..
            } => first([(self.publisher(name.as_str()).is_none(), Reason::NotFound)]),
            Command::RemovePlugin { digest, .. } => {
                let there = self.installed().iter().any(|(plugin, _)| plugin.digest == *digest);
                first([(!there, Reason::NotFound)])
            }
            Command::InstallPlugin {
                plugin,
                signed,
                consent,
                ..
            } => self.installs(time, plugin, signed.as_ref(), consent),
            _ => Ok(()),
        }
    }

    fn times(time: Time, issued: Time, expires: Time) -> [(bool, Reason); 2] {
        [
            (issued.0 > time.0 + SKEW, Reason::NotYetValid),
            (expires <= time, Reason::Expired),
        ]
    }

    fn spent<'k>(self, owner: &str, keys: impl Iterator<Item = &'k skep_rules::key::PublicKey>) -> Verdict {
        for key in keys {
            let theirs = |it: &Publisher| {
                it.name.as_str() != owner && (it.release.keys.contains(key) || it.recovery == Some(*key))
            };
            let taken = self.publishers().iter().any(theirs);
            first([
                (self.is_revoked(&id_of(key)), Reason::Revoked),
                (taken, Reason::Conflict),
            ])?;
        }
        Ok(())
    }

    fn trusts(self, time: Time, publisher: &Publisher) -> Verdict {
        let bad =
            publisher.release.threshold == 0 || publisher.release.threshold as usize > publisher.release.keys.len();
        first([
            (bad, Reason::InvalidMetadata),
            (self.root().is_some(), Reason::SignerUntrusted),
        ])?;
        self.spent(
            publisher.name.as_str(),
            publisher.release.keys.iter().chain(&publisher.recovery),
        )?;
        let long = publisher.expires.0.saturating_sub(time.0) > 400 * DAY;
        first([
            (long, Reason::InvalidMetadata),
            (publisher.expires <= time, Reason::Expired),
        ])
    }

    fn adopts_root(self, time: Time, root: &Root, signers: &BTreeSet<KeyId>) -> Verdict {
        let signers = self.sound(signers);
        let long = root
            .publishers
            .iter()
            .any(|it| it.expires.0.saturating_sub(root.issued.0) > 400 * DAY);
        first([(odd(root.issued, root.expires, 366) || long, Reason::InvalidMetadata)])?;
        if let Some((_, last)) = self.root() {
            first(in_turn(root.version, last.version))?;
            first([(!enough(&last.root, &signers), Reason::ThresholdUnmet)])?;
        }
        first([(!enough(&root.root, &signers), Reason::ThresholdUnmet)])?;
        first(Self::times(time, root.issued, root.expires))
    }

    fn rotates(self, time: Time, rotation: &Rotation, signers: &BTreeSet<KeyId>) -> Verdict {
        first([(odd(rotation.issued, rotation.expires, 400), Reason::InvalidMetadata)])?;
        let Some((publisher, last)) = self.publisher(rotation.publisher.as_str()) else {
            return Err(Reason::NotFound);
        };
        first(in_turn(rotation.version, last))?;
        let signers = self.sound(signers);
        let recovered = publisher.recovery.is_some_and(|key| signers.contains(&id_of(&key)));
        first([
            (publisher.expires <= time, Reason::Expired),
            (
                !recovered || !enough(&publisher.release, &signers),
                Reason::ThresholdUnmet,
            ),
            (
                rotation.release.threshold < publisher.release.threshold,
                Reason::InvalidMetadata,
            ),
        ])?;
        self.spent(
            publisher.name.as_str(),
            rotation.release.keys.iter().chain([&rotation.recovery]),
        )?;
        first(Self::times(time, rotation.issued, rotation.expires))
    }

    /// Whether a role's keys have signed.
    fn by_role(self, role: fn(&Root) -> &Option<Keys>, signers: &BTreeSet<KeyId>) -> Verdict {
        match self.root().and_then(|(_, root)| role(root).as_ref()) {
            None => Err(Reason::SignerUntrusted),
            Some(keys) => first([(!enough(keys, &self.sound(signers)), Reason::ThresholdUnmet)]),
        }
    }

    fn adopts_index(self, time: Time, index: &Index, digest: Digest, signers: &BTreeSet<KeyId>) -> Verdict {
        first([(odd(index.issued, index.expires, 7), Reason::InvalidMetadata)])?;
        self.by_role(|root| &root.index, signers)?;
        if let Some((last, known)) = self.index().filter(|(_, known)| *known != digest) {
            let forgets = last.plugins.iter().any(|(name, newest)| match index.plugins.get(name) {
                None => true,
                Some(now) if now.release_seq == newest.release_seq => now.digest != newest.digest,
                Some(now) => now.release_seq < newest.release_seq,
            });
            assert_ne!(known, digest);
            let older = index.version <= last.version || index.revoked.version < last.revoked.version;
            first([(older || forgets, Reason::Rollback)])?;
        }
        first(Self::times(time, index.issued, index.expires))
    }

    fn adopts_clock(self, time: Time, clock: &Clock, signers: &BTreeSet<KeyId>) -> Verdict {
        first([(odd(clock.issued, clock.expires, 90), Reason::InvalidMetadata)])?;
        self.by_role(|root| &root.clock, signers)?;
        let said = |it: &Clock| (it.version, it.expires, it.index);
        let older = |last: &Clock| clock.version <= last.version && said(clock) != said(last);
        first([(self.clock().is_some_and(older), Reason::Rollback)])?;
        first(Self::times(time, clock.issued, clock.expires))
    }

    fn installs(self, time: Time, plugin: &Plugin, signed: Option<&Signed>, consent: &Consent) -> Verdict {
        let installed = self.installed();
        if installed.iter().any(|(it, _)| it.digest == plugin.digest) {
            return first([(self.fallen(&installed).contains(&plugin.digest), Reason::Revoked)]);
        }
        let name = &plugin.manifest.plugin.name;
        let Some(signed) = signed else {
            let revoked = self.said_revoked().iter().any(|it| it.digests.contains(&plugin.digest));
            return first([(revoked, Reason::Revoked), (true, Reason::SignatureMissing)]);
        };
        self.releases(time, plugin, signed, consent.downgrade.is_some())?;
        let publisher = name.publisher();
        let first_contact = !self.accepted.iter().any(|(_, command)| match command {
            Command::InstallPlugin { plugin, signed, .. } => {
                signed.is_some() && plugin.manifest.plugin.name.publisher() == publisher
            }
            _ => false,
        });
        let fallen = self.fallen(&installed);
        let standing = |it: &&Installed<'_>| {
            it.0.manifest.plugin.name == *name && it.0.digest != plugin.digest && !fallen.contains(&it.0.digest)
        };
        let comes_back = self.highest(name).is_some() && !installed.iter().any(|it| standing(&it));
        let untyped = (first_contact || comes_back) && consent.publisher.as_deref() != Some(publisher);
        let newest = installed
            .iter()
            .filter(standing)
            .max_by_key(|(_, signed)| signed.as_ref().map(|(signed, ..)| signed.release.release_seq));
        // Plugins here want scratch space or one host at most, so that is all that can grow.
        let wants = &plugin.manifest.wants;
        let wider = newest.filter(|(before, _)| {
            let had = &before.manifest.wants;
            wants.workspace > had.workspace || !wants.http.is_subset(&had.http)
        });
        let unapproved = wider.is_some_and(|(before, _)| consent.widening != Some((before.digest, plugin.digest)));
        let version = |(it, _): &Installed<'_>| {
            it.manifest.plugin.name == *name && it.manifest.plugin.version == plugin.manifest.plugin.version
        };
        first([
            (untyped, Reason::FirstContact),
            (unapproved, Reason::ApprovalRequired),
            (installed.iter().any(version), Reason::Conflict),
        ])
    }

    fn releases(self, time: Time, plugin: &Plugin, signed: &Signed, downgrade: bool) -> Verdict {
        let Release {
            plugin: name,
            release_seq: seq,
            previous,
            not_before,
            expires,
            ..
        } = &signed.release;
        let Some((publisher, _)) = self.publisher(name.publisher()) else {
            return Err(Reason::SignerUntrusted);
        };
        let own: BTreeSet<KeyId> = publisher.release.keys.iter().map(id_of).collect();
        let signers: BTreeSet<KeyId> = signed.signers.intersection(&own).copied().collect();
        let good = self.sound(&signers).len();
        let (root, index, clock) = (self.root(), self.index(), self.clock());
        let over = |until: Time| until <= time;
        let timed = root.is_some_and(|(_, root)| root.clock.is_some());
        let stale = index.is_some_and(|(index, digest)| {
            let frozen = clock.is_none_or(|clock| over(clock.expires) || clock.index != digest);
            over(index.expires) || (timed && frozen)
        });
        let highest = self.highest(name);
        let last = highest.map(|it| it.release.release_seq);
        let listed = index.and_then(|(index, _)| index.plugins.get(name));
        let older = last.is_some_and(|last| *seq < last) || listed.is_some_and(|listed| *seq < listed.release_seq);
        let other = highest
            .is_some_and(|it| it.release.release_seq == *seq && it.release.component.sha256 != plugin.digest)
            || listed.is_some_and(|it| it.release_seq == *seq && it.digest != plugin.digest);
        let broken =
            last.and_then(|last| last.checked_add(1)) == Some(*seq) && *previous != highest.map(|it| it.statement);
        first([
            (self.is_revoked_release(plugin.digest, name, *seq), Reason::Revoked),
            (signers.is_empty(), Reason::SignerUntrusted),
            (good == 0, Reason::Revoked),
            (good < needed(plugin, &publisher), Reason::ThresholdUnmet),
            (over(publisher.expires), Reason::Expired),
            (root.is_some_and(|(_, root)| over(root.expires)), Reason::Expired),
            (not_before.0 > time.0 + SKEW, Reason::NotYetValid),
            (over(*expires) || stale, Reason::Expired),
            ((older && !downgrade) || other || broken, Reason::Rollback),
        ])
    }
}

/// How many keys must sign: two where it wants to reach any host beneath a name.
fn needed(plugin: &Plugin, publisher: &Publisher) -> usize {
    let wild = plugin.manifest.wants.http.iter().any(|want| want.host.is_wildcard());
    (publisher.release.threshold as usize).max(if wild { 2 } else { 1 })
}
