//! A host, its disk and everybody who says things to it. What they say is right as it comes from here; the kinds spoil it.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use skep_rules::{
    command::Command,
    facts::Facts,
    id::PluginName,
    metadata::{Clock, Index, Keys, Newest, Publisher, Root, Rotation},
    quantity::{Millis, Time},
    reason::Reason,
    shard::{Output, Shard},
    trust::Revocation,
};

use crate::{
    fixtures::{self, DAY, START, Ship, clock, index, keys, later, publisher, ship},
    model::Model,
};

/// What happened how often: in which kind, what, and for which reason it was refused, if it was.
pub(crate) type Seen = BTreeMap<(&'static str, &'static str, Option<Reason>), u64>;

/// What happens in one step of a kind.
pub(crate) type Turn = fn(&mut World);

pub(crate) const PUBLISHERS: &[&str] = &["acme", "bolt"];
/// A key that nobody trusts.
pub(crate) const STRANGER: u8 = 255;

pub(crate) struct Luck(ChaCha8Rng);

impl Luck {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())].clone()
    }
}

pub(crate) struct World {
    pub(crate) luck: Luck,
    pub(crate) now: Time,
    pub(crate) kind: &'static str,
    pub(crate) seen: Seen,
    /// Everything that was ever said to the host.
    pub(crate) said: Vec<Command>,
    shard: Shard,
    accepted: Vec<(Time, Command)>,
    /// The last checkpoint and what came after.
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    position: u64,
    entries: Vec<Vec<u8>>,
    keys: u8,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut world = World {
            luck: Luck(ChaCha8Rng::seed_from_u64(seed)),
            now: START,
            kind: "the beginning",
            seen: Seen::new(),
            said: Vec::new(),
            shard: Shard::default(),
            accepted: Vec::new(),
            records: BTreeMap::new(),
            position: 0,
            entries: Vec::new(),
            keys: 0,
        };
        for name in PUBLISHERS {
            let publisher = world.new_publisher(name);
            world.ask(fixtures::trust(publisher));
        }
        world
    }

    pub(crate) fn model(&self) -> Model<'_> {
        Model {
            accepted: &self.accepted,
        }
    }

    /// The latest time that the host has seen.
    pub(crate) fn time(&self) -> Time {
        self.model().time(self.now)
    }

    /// Says something to the host, and compares what it does with what the model says.
    pub(crate) fn ask(&mut self, command: Command) -> bool {
        self.now = self.now.after(Millis(1));
        let expected = self.model().says(self.now, &command);
        let what = name_of(&command);
        self.said.push(command.clone());
        let answer = self.shard.submit(self.now, &Facts::default(), command.clone());
        let found = answer.as_ref().map(|_| ()).map_err(|rejection| rejection.reason);
        let why = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert_eq!(
            found, expected,
            "the host is left, the model right: {why}: {command:#?}"
        );
        *self.seen.entry((self.kind, what, found.err())).or_default() += 1;
        if let Ok(output) = answer {
            self.took(output, command);
        }
        self.agrees();
        found.is_ok()
    }

    fn took(&mut self, output: Output, command: Command) {
        // What was known already is no news, and not when it was said either.
        if !output.entries.is_empty() {
            self.accepted.push((self.now, command));
        }
        self.entries.extend(output.entries);
    }

    /// The host trusts whom the model trusts, and of what is installed the same has fallen.
    fn agrees(&self) {
        let (state, model) = (self.shard.state(), self.model());
        let trusted: Vec<Publisher> = state.trust().publishers().map(|it| it.publisher.clone()).collect();
        assert_eq!(trusted, model.publishers());
        let void = state
            .plugins()
            .map(|plugin| plugin.digest)
            .filter(|digest| state.is_void(*digest));
        let known = model.installed();
        assert!(void.eq(model.fallen(&known)));
        let mut installed: Vec<_> = known.iter().map(|(plugin, _)| plugin.digest).collect();
        installed.sort_unstable();
        assert!(state.plugins().map(|plugin| plugin.digest).eq(installed));
    }

    /// Now and then a checkpoint, a tick or a crash.
    pub(crate) fn mishap(&mut self) {
        match self.luck.below(12) {
            0 => {
                let checkpoint = self.shard.checkpoint();
                for (key, value) in checkpoint.records {
                    match value {
                        Some(value) => drop(self.records.insert(key, value)),
                        None => drop(self.records.remove(&key)),
                    }
                }
                (self.position, self.entries) = (checkpoint.position, Vec::new());
            }
            1 => {
                let output = self.shard.tick(self.now);
                self.took(output, seen());
            }
            2 => {
                let mut again = Shard::load(self.position, self.records.clone()).unwrap();
                for (entry, position) in self.entries.iter().zip(self.position + 1..) {
                    again.replay(position, entry).unwrap();
                }
                let (live, lost) = (again.state(), self.shard.state());
                assert_eq!(live.trust(), lost.trust());
                assert!(live.plugins().eq(lost.plugins()));
                self.shard = again;
                let output = self.shard.resume(self.now);
                self.took(output, seen());
                self.agrees();
                *self.seen.entry((self.kind, "crash", None)).or_default() += 1;
            }
            _ => {}
        }
    }

    /// Lets days pass, or takes them back.
    pub(crate) fn jump(&mut self, days: i64) {
        let millis = days.unsigned_abs() * DAY;
        self.now = Time(if days < 0 {
            self.now.0.saturating_sub(millis).max(1_000 * DAY)
        } else {
            self.now.0 + millis
        });
    }

    /// A key that was never used before.
    pub(crate) fn fresh(&mut self) -> u8 {
        self.keys = self.keys % (STRANGER - 1) + 1;
        self.keys
    }

    /// New keys of a role: so many, of which so many must sign.
    pub(crate) fn fresh_keys(&mut self, threshold: u32, count: usize) -> Keys {
        let numbers: Vec<u8> = (0..count).map(|_| self.fresh()).collect();
        keys(threshold, &numbers)
    }

    /// Some of the keys, as many as must sign.
    pub(crate) fn quorum(&mut self, of: &Keys) -> Vec<u8> {
        self.some(of, of.threshold as usize)
    }

    pub(crate) fn some(&mut self, of: &Keys, count: usize) -> Vec<u8> {
        let mut numbers = numbers(of);
        while numbers.len() > count {
            let at = self.luck.index(numbers.len());
            numbers.remove(at);
        }
        numbers
    }

    pub(crate) fn known_publisher(&self, name: &str) -> Option<(Publisher, u64)> {
        self.model().publisher(name)
    }

    /// A publisher as somebody may begin to trust it.
    pub(crate) fn new_publisher(&mut self, name: &str) -> Publisher {
        let count = 1 + self.luck.index(3);
        let threshold = if self.luck.percent(75) {
            1
        } else {
            u32::try_from(count).unwrap()
        };
        let (release, recovery) = (self.fresh_keys(threshold, count), self.fresh());
        publisher(name, release, recovery, self.time())
    }

    /// The next root and who signs it; the publishers of before, their trust renewed, and mostly those that are missing.
    pub(crate) fn next_root(&mut self) -> (Root, Vec<u8>) {
        let time = self.time();
        let mut publishers = self.model().publishers();
        for publisher in &mut publishers {
            publisher.expires = later(time, 300);
        }
        for name in PUBLISHERS {
            let listed = publishers.iter().any(|it| it.name.as_str() == *name);
            if !listed && self.luck.percent(70) {
                publishers.push(self.new_publisher(name));
            }
        }
        if let Some((_, last)) = self.model().root() {
            let mut next = last.clone();
            let signers = self.quorum(&next.root);
            (next.version, next.publishers) = (next.version.saturating_add(1), publishers);
            (next.issued, next.expires) = (time, later(time, 200));
            return (next, signers);
        }
        let roles = [self.fresh(), self.fresh(), self.fresh()];
        let first = fixtures::root(1 + self.luck.below(3), roles, publishers, time);
        (first, vec![roles[0]])
    }

    /// The keys of a role, or a stranger's where it has none.
    pub(crate) fn role(&mut self, role: fn(&Root) -> &Option<Keys>) -> Vec<u8> {
        let found = self.model().root().and_then(|(_, root)| role(root).clone());
        found.map_or(vec![STRANGER], |keys| self.quorum(&keys))
    }

    /// The next index, with what was installed listed now and then, and who signs it.
    pub(crate) fn next_index(&mut self) -> (Index, Vec<u8>) {
        let (time, last) = (self.time(), self.model().index().map(|(index, _)| index.clone()));
        let mut next = index(last.as_ref().map_or(1, |last| last.version.saturating_add(1)), time);
        if let Some(last) = last {
            (next.plugins, next.revoked) = (last.plugins, last.revoked);
        }
        let name: PluginName = self.plugin_name().parse().unwrap();
        let highest = self
            .model()
            .highest(&name)
            .map(|it| (it.release.release_seq, it.release.component.sha256));
        if let Some((release_seq, digest)) = highest.filter(|_| self.luck.percent(50)) {
            let listed = next.plugins.entry(name).or_insert(Newest { release_seq, digest });
            if release_seq > listed.release_seq {
                *listed = Newest { release_seq, digest };
            }
        }
        (next, self.role(|root| &root.index))
    }

    /// The next clock, of the index that is here, and who signs it.
    pub(crate) fn next_clock(&mut self) -> (Clock, Vec<u8>) {
        let version = self.model().clock().map_or(1, |last| last.version.saturating_add(1));
        let of = self.model().index().map(|(index, _)| index.clone());
        let of = of.unwrap_or_else(|| index(1, START));
        (clock(version, &of, self.time()), self.role(|root| &root.clock))
    }

    /// A publisher's next rotation and who signs it.
    pub(crate) fn next_rotation(&mut self, name: &str) -> (Rotation, Vec<u8>) {
        let time = self.time();
        let (release, recovery) = (self.fresh_keys(1, 1), self.fresh());
        let Some((known, last)) = self.known_publisher(name) else {
            return (fixtures::rotation(name, 1, release, recovery, time), vec![STRANGER]);
        };
        let mut signers = self.quorum(&known.release);
        signers.extend(known.recovery.map(|key| key.as_bytes()[0]));
        (fixtures::rotation(name, last + 1, release, recovery, time), signers)
    }

    pub(crate) fn publisher_name(&mut self) -> &'static str {
        self.luck.pick(PUBLISHERS)
    }

    pub(crate) fn plugin_name(&mut self) -> &'static str {
        self.luck.pick(&["acme/one", "acme/two", "bolt/one"])
    }

    /// A release of a number, valid now, signed and agreed to as it must be.
    pub(crate) fn release(&mut self, name: &str, seq: u64, more: &str) -> Ship {
        let (time, plugin) = (self.time(), name.parse::<PluginName>().unwrap());
        let mut it = ship(name, seq, more);
        (it.release.not_before, it.release.expires) = (time, later(time, 100));
        it.signers = match self.known_publisher(plugin.publisher()) {
            Some((publisher, _)) => self.quorum(&publisher.release),
            None => vec![STRANGER],
        };
        let highest = self
            .model()
            .highest(&plugin)
            .map(|it| (it.release.release_seq, it.statement));
        it = it.after(
            highest
                .filter(|(last, _)| last.checked_add(1) == Some(seq))
                .map(|(_, it)| it),
        );
        let installed = self.model().installed();
        let before = installed.iter().filter(|(it, _)| it.manifest.plugin.name == plugin);
        let before = before.max_by_key(|(_, signed)| signed.as_ref().map(|(signed, ..)| signed.release.release_seq));
        it.consent.widening = before.map(|(before, _)| (before.digest, it.plugin.digest));
        it
    }

    /// The release after the highest.
    pub(crate) fn next_release(&mut self) -> Ship {
        let name = self.plugin_name();
        let highest = self
            .model()
            .highest(&name.parse().unwrap())
            .map_or(0, |it| it.release.release_seq);
        let more = self.luck.pick(&["", "", "[wants]\nworkspace = '1MiB'"]);
        self.release(name, highest.saturating_add(1), more)
    }

    /// Something to revoke, mostly something that is there.
    pub(crate) fn revocation(&mut self) -> Revocation {
        let (name, plugin) = (self.publisher_name(), self.plugin_name());
        let known = self
            .known_publisher(name)
            .map(|(publisher, _)| numbers(&publisher.release));
        let minimum = self
            .model()
            .highest(&plugin.parse().unwrap())
            .map_or(2, |it| it.release.release_seq);
        let digests: Vec<_> = self
            .model()
            .installed()
            .iter()
            .map(|(plugin, _)| plugin.digest)
            .collect();
        match self.luck.below(8) {
            0 => Revocation::Publisher(name.parse().unwrap()),
            1..=2 => Revocation::Below {
                plugin: plugin.parse().unwrap(),
                minimum,
            },
            3..=4 if !digests.is_empty() => Revocation::Digest(self.luck.pick(&digests)),
            _ => {
                let key = known.map_or(STRANGER, |numbers| self.luck.pick(&numbers));
                Revocation::Key(fixtures::key(key).id())
            }
        }
    }
}

/// The numbers of keys.
pub(crate) fn numbers(of: &Keys) -> Vec<u8> {
    of.keys.iter().map(|key| key.as_bytes()[0]).collect()
}

/// Time was seen, and nothing else.
fn seen() -> Command {
    Command::NoteRefusal {
        reason: Reason::Error,
        detail: String::new(),
        by: String::new(),
    }
}

fn name_of(command: &Command) -> &'static str {
    match command {
        Command::TrustPublisher { .. } => "trust",
        Command::AdoptRoot { .. } => "root",
        Command::RotateKeys { .. } => "rotation",
        Command::AdoptIndex { .. } => "index",
        Command::AdoptClock { .. } => "clock",
        Command::InstallPlugin { consent, .. } if consent.downgrade.is_some() => "downgrade",
        Command::InstallPlugin { .. } => "install",
        Command::RemovePlugin { .. } => "remove",
        Command::Revoke { .. } => "revoke",
        Command::ResetTime { .. } => "reset",
        _ => "another",
    }
}
