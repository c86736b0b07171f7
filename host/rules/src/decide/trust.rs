//! Who is trusted, what may be installed, what is revoked, and what becomes of agents whose plugin was: ended and quarantined, their tasks paused.

use std::collections::BTreeSet;

use super::{Decision, Reply};
use crate::{
    agent::{Agent, Failure, Phase},
    audit::{AuditEntry, Kind},
    command::Consent,
    crew_record::CrewPhase,
    effect::Changed,
    event::{Change, Event},
    grant,
    id::{AgentId, Digest, TaskId},
    key::KeyId,
    limits::{
        CLOCK_SKEW, MAX_DECISION_BYTES, MAX_KNOWN_PLUGINS, MAX_PLUGINS, MAX_PUBLISHERS, MAX_REASON_BYTES,
        MAX_RELEASE_LIFE, MAX_REVOCATIONS, MAX_REVOCATIONS_BY_HAND, REVOCATION_DRAIN, REVOCATION_SWEEP, TIME_SEEN,
    },
    metadata::{Clock, Document, Index, Publisher, Root, Rotation},
    plugin::{Plugin, Signature},
    quantity::Time,
    reason::Reason,
    rejection::Rejection,
    seam::{Export, RunnerCommand},
    state::{State, encode},
    trust::{Revocation, SeenClock, Signed},
    widening,
};

impl Decision<'_> {
    pub(super) fn install(
        &mut self,
        plugin: Plugin,
        signed: Option<Signed>,
        consent: &Consent,
    ) -> Result<Reply, Rejection> {
        let digest = plugin.digest;
        let known = self.state.plugin(digest);
        // A plugin that was taken unsigned may be signed later; otherwise a digest is installed once.
        if let Some(known) = known.filter(|known| known.signed.is_some() || signed.is_none()) {
            self.state.trust().stands(known)?;
            return Ok(Reply::Installed { digest, already: true });
        }
        let (new, revision) = (known.is_none(), known.map_or(1, |known| known.revision + 1));
        let signature = match &signed {
            Some(signed) => Some(self.state.admit(self.now, &plugin, signed, consent)?),
            None if self.state.is_void(digest) => {
                return Err(Rejection::new(
                    Reason::Revoked,
                    format!("the file sha256:{digest} is revoked"),
                ));
            }
            None if self.unsigned => None,
            None => return Err(Rejection::unsigned()),
        };
        let about = &plugin.manifest.plugin;
        let same_name = |other: &&Plugin| {
            let other_about = &other.manifest.plugin;
            other.digest != digest && other_about.name == about.name && other_about.version == about.version
        };
        if let Some(other) = self.state.plugins().find(same_name) {
            let message = format!(
                "{}@{} is installed with another file (sha256 {}…); a version never changes, so raise it",
                about.name,
                about.version,
                other.digest.short()
            );
            return Err(Rejection::new(Reason::Conflict, message));
        }
        if new && self.state.plugins().count() >= MAX_PLUGINS {
            let message = format!("a host holds at most {MAX_PLUGINS} plugins");
            return Err(Rejection::new(Reason::Overloaded, message));
        }
        let trust = self.state.trust();
        if trust.highest(&about.name).is_none() && trust.highest.len() >= MAX_KNOWN_PLUGINS {
            let message = format!("a host remembers the numbers of at most {MAX_KNOWN_PLUGINS} plugins");
            return Err(Rejection::new(Reason::Overloaded, message));
        }
        let mut detail = format!("{}@{} sha256:{digest}", about.name, about.version);
        match &signature {
            Some(signature) => {
                let keys: Vec<String> = signature.signers.iter().map(KeyId::short).collect();
                detail.push_str(&format!(" release {} by {}", signature.release_seq, keys.join(" ")));
            }
            None => detail.push_str(" unsigned"),
        }
        if let Some(why) = &consent.downgrade {
            detail.push_str(&format!(", an older release on purpose: {why}"));
        }
        if consent.widening.is_some_and(|(_, to)| to == digest) {
            detail.push_str(", its wider permissions approved");
        }
        let plugin = Plugin {
            installed_at: self.now,
            revision,
            signed: signature,
            ..plugin
        };
        small_enough(&plugin)?;
        self.emit(Event::PluginInstalled(Box::new(plugin)));
        self.tell(Kind::PluginInstalled, detail, Changed::Plugin(digest));
        Ok(Reply::Installed { digest, already: false })
    }

    pub(super) fn remove(&mut self, digest: Digest) -> Result<Reply, Rejection> {
        let Some(plugin) = self.state.plugin(digest) else {
            return Err(Rejection::not_found(format!("plugin sha256:{digest}")));
        };
        let about = &plugin.manifest.plugin;
        let detail = format!("{}@{} sha256:{digest}", about.name, about.version);
        let uses = |crew: &&crate::crew_record::Crew| {
            crew.phase != CrewPhase::Stopped && crew.members.iter().any(|member| member.digest == digest)
        };
        if let Some(crew) = self.state.crews().find(uses) {
            let message = format!("the crew `{}` uses {}; drain it first", crew.manifest.name, about.name);
            return Err(Rejection::new(Reason::Conflict, message));
        }
        self.emit(Event::PluginRemoved { digest, at: self.now });
        self.tell(Kind::PluginRemoved, detail, Changed::Plugin(digest));
        Ok(Reply::Done)
    }

    /// Puts a refusal on record.
    pub(super) fn note_refusal(&mut self, reason: Reason, detail: &str) -> Reply {
        self.emit(Event::TimeSeen { at: self.now });
        let entry = AuditEntry {
            reason: Some(reason),
            ..self.entry(Kind::Refused, detail)
        };
        self.audit.push(entry);
        Reply::Done
    }

    pub(super) fn trust_publisher(&mut self, publisher: Publisher) -> Result<Reply, Rejection> {
        let trust = self.state.trust();
        if let Some(fault) = publisher.fault() {
            return Err(Rejection::new(Reason::InvalidMetadata, fault));
        }
        if trust.metadata.roles.is_some() {
            let message = "this host has a signed root: only the next root changes who is trusted";
            return Err(Rejection::new(Reason::SignerUntrusted, message));
        }
        let known = trust.publishers.contains_key(&publisher.name);
        if !known && trust.publishers.len() >= MAX_PUBLISHERS {
            let message = format!("a host trusts at most {MAX_PUBLISHERS} publishers");
            return Err(Rejection::new(Reason::Overloaded, message));
        }
        trust.unspent(
            publisher.release.keys.iter().chain(&publisher.recovery),
            &publisher.name,
        )?;
        let now = trust.time(self.now);
        if publisher.expires.since(now) > MAX_RELEASE_LIFE {
            let message = format!("trust lasts at most {MAX_RELEASE_LIFE}; renew it then");
            return Err(Rejection::new(Reason::InvalidMetadata, message));
        }
        if publisher.expires <= now {
            return Err(Rejection::new(
                Reason::Expired,
                "the trust would have ended before it begins",
            ));
        }
        let keys: Vec<String> = publisher.release.keys.iter().map(|key| key.id().short()).collect();
        let detail = format!("{} with {}", publisher.name, keys.join(" "));
        self.emit(Event::PublisherTrusted {
            publisher: Box::new(publisher),
            at: self.now,
        });
        self.tell(Kind::PublisherTrusted, detail, Changed::Trust);
        Ok(Reply::Done)
    }

    pub(super) fn adopt_root(&mut self, root: Root, signers: &BTreeSet<KeyId>) -> Result<Reply, Rejection> {
        sound(&root)?;
        let trust = self.state.trust();
        trust.admits_root(trust.time(self.now), &root, signers)?;
        let detail = format!("root {} with {} publishers", root.version, root.publishers.len());
        self.emit(Event::RootAdopted {
            root: Box::new(root),
            at: self.now,
        });
        self.tell(Kind::RootAdopted, detail, Changed::Trust);
        Ok(Reply::Done)
    }

    pub(super) fn rotate(&mut self, rotation: Rotation, signers: &BTreeSet<KeyId>) -> Result<Reply, Rejection> {
        sound(&rotation)?;
        let trust = self.state.trust();
        trust.admits_rotation(trust.time(self.now), &rotation, signers)?;
        let detail = format!("{} rotation {}", rotation.publisher, rotation.version);
        self.emit(Event::KeysRotated {
            rotation: Box::new(rotation),
            at: self.now,
        });
        self.tell(Kind::KeysRotated, detail, Changed::Trust);
        Ok(Reply::Done)
    }

    pub(super) fn adopt_index(
        &mut self,
        index: Index,
        digest: Digest,
        signers: &BTreeSet<KeyId>,
    ) -> Result<Reply, Rejection> {
        sound(&index)?;
        let trust = self.state.trust();
        trust.admits_index(trust.time(self.now), &index, digest, signers)?;
        if trust.metadata.index.as_ref().is_some_and(|seen| seen.digest == digest) {
            return Ok(Reply::Done);
        }
        if trust.revoked_with(&index).count() > MAX_REVOCATIONS {
            return Err(full());
        }
        let revoked = index.revoked.count();
        let detail = format!(
            "index {} with {} plugins and {revoked} revocations",
            index.version,
            index.plugins.len()
        );
        self.emit(Event::IndexAdopted {
            index: Box::new(index),
            digest,
            at: self.now,
        });
        self.tell(Kind::IndexAdopted, detail, Changed::Trust);
        Ok(Reply::Done)
    }

    pub(super) fn adopt_clock(&mut self, clock: Clock, signers: &BTreeSet<KeyId>) -> Result<Reply, Rejection> {
        sound(&clock)?;
        let trust = self.state.trust();
        trust.admits_clock(trust.time(self.now), &clock, signers)?;
        if trust.metadata.clock == Some(SeenClock::of(&clock)) {
            return Ok(Reply::Done);
        }
        let detail = format!("clock {}", clock.version);
        self.emit(Event::ClockAdopted { clock, at: self.now });
        self.tell(Kind::ClockAdopted, detail, Changed::Trust);
        Ok(Reply::Done)
    }

    pub(super) fn revoke(&mut self, what: Revocation, why: &str) -> Result<Reply, Rejection> {
        reason_fits(Some(why))?;
        let trust = self.state.trust();
        if trust.is_revoked(&what) {
            // An index said so before, and the sweep is patient.
            self.condemn_fallen();
            return Ok(Reply::Done);
        }
        // A stolen index must not use up the room that a person needs against it.
        let keys = self.state.keys_ended_by(&what);
        let new = keys.difference(&trust.metadata.revoked.keys).count().max(1);
        if trust.metadata.revoked.count() + new > MAX_REVOCATIONS + MAX_REVOCATIONS_BY_HAND {
            return Err(full());
        }
        if trust.would_end_root(&keys) {
            let message = "too few of the root's keys would be left to sign the next root, which is how a key of the root is dropped";
            return Err(Rejection::new(Reason::Conflict, message));
        }
        let subject = match &what {
            Revocation::Key(key) => key.to_string(),
            Revocation::Digest(digest) => format!("sha256:{digest}"),
            Revocation::Below { plugin, minimum } => format!("{plugin} below release {minimum}"),
            Revocation::Publisher(name) if trust.publishers.contains_key(name) => format!("publisher {name}"),
            Revocation::Publisher(name) => return Err(Rejection::not_found(format!("trusted publisher `{name}`"))),
        };
        self.emit(Event::Revoked { what, at: self.now });
        self.tell(Kind::Revoked, format!("{subject}: {why}"), Changed::Trust);
        self.condemn_fallen();
        Ok(Reply::Done)
    }

    /// At once: whoever revokes by hand does not want the sweep's patience.
    fn condemn_fallen(&mut self) {
        let fallen: Vec<AgentId> = self.fallen().map(|agent| agent.id).collect();
        self.observed.condemned.extend(fallen);
    }

    pub(super) fn reset_time(&mut self, why: &str) -> Result<Reply, Rejection> {
        reason_fits(Some(why))?;
        let before = self.state.trust().latest;
        self.emit(Event::TimeReset { at: self.now });
        self.reset_schedules();
        let detail = format!("from {} to {} ms: {why}", before.0, self.now.0);
        self.tell(Kind::TimeReset, detail, Changed::Trust);
        Ok(Reply::Done)
    }

    /// Quarantines those whose time is over. There may be thousands, so they count as steps, and come before all other work.
    pub(super) fn quarantine_condemned(&mut self) -> bool {
        let mut any = false;
        while let Some(agent) = self.observed.condemned.first().copied() {
            if !self.step() {
                return false;
            }
            self.observed.condemned.pop_first();
            self.quarantine(agent);
            any = true;
        }
        any
    }

    /// Ends an agent whose plugin must not run: its attempts are stopped and accepted no more, its tasks wait for a person.
    pub(super) fn quarantine(&mut self, id: AgentId) {
        let Some(agent) = self.state.agent(id).filter(|agent| active(agent.phase)) else {
            return;
        };
        let crew = self.state.crew(agent.crew).map(|crew| crew.phase);
        let why = match self.state.member_of(agent) {
            Some(member) => format!("the plugin {}@{} was revoked", member.plugin, member.version),
            None => "its plugin was revoked".to_owned(),
        };
        let failure = Failure::new(Reason::Revoked, &why);
        let export = |task: TaskId| Some((task, self.state.task(task)?.held.as_ref()?.export));
        let held: Vec<_> = self.state.index.held_by(id).filter_map(export).collect();
        for (task, export) in held {
            let change = match export {
                // What it looks at is another's: another may look at it.
                Export::Checker | Export::Sequencer => Change::Lost,
                Export::Executor | Export::Planner | Export::Mailbox => Change::Paused(failure.clone()),
            };
            self.move_task(task, change);
        }
        self.move_agent(id, Phase::Quarantined, Some(failure.clone()));
        // A crew that drains ends when all its agents are stopped; nobody is to wait there for a person's word.
        if crew == Some(CrewPhase::Draining) {
            self.move_agent(id, Phase::Stopped, Some(failure));
        }
        self.run(RunnerCommand::Forget { agent: id });
    }

    /// Agents that run, or may yet run, what must not.
    fn fallen(&self) -> impl Iterator<Item = &Agent> {
        let agents = self.state.agents().filter(|agent| active(agent.phase));
        agents.filter(|agent| self.is_fallen(agent))
    }

    /// Whether an agent's plugin must not run.
    pub(super) fn is_fallen(&self, agent: &Agent) -> bool {
        let member = self.state.member_of(agent);
        member.is_some_and(|member| self.state.is_void(member.digest))
    }

    /// Compares what runs with what is revoked: what rests is quarantined, what works is drained first and ended when its time is over.
    pub(super) fn sweep_revoked(&mut self) {
        if self.observed.next_sweep.is_some_and(|due| due > self.now) {
            return;
        }
        if self.now.since(self.state.trust().latest) >= TIME_SEEN {
            self.emit(Event::TimeSeen { at: self.now });
        }
        let fallen: Vec<_> = self
            .fallen()
            .map(|agent| (agent.id, agent.phase, agent.active))
            .collect();
        let known: BTreeSet<AgentId> = self.observed.drained.values().flatten().copied().collect();
        for (agent, phase, active) in fallen {
            if active == 0 {
                self.observed.condemned.insert(agent);
            } else if !known.contains(&agent) {
                if !self.step() {
                    // The next tick, which comes at once, goes on with those that are left.
                    return;
                }
                let end = self.now.after(REVOCATION_DRAIN);
                self.observed.drained.entry(end).or_default().insert(agent);
                if phase != Phase::Draining {
                    let failure = Failure::new(Reason::Revoked, "its plugin was revoked");
                    self.move_agent(agent, Phase::Draining, Some(failure));
                }
                self.run(RunnerCommand::Drain { agent });
            }
        }
        self.observed.next_sweep = Some(self.now.after(REVOCATION_SWEEP));
    }

    /// Ends what the sweep gave time, when that is over.
    pub(super) fn end_drained(&mut self) {
        while let Some(over) = self
            .observed
            .drained
            .first_entry()
            .filter(|over| *over.key() <= self.now)
        {
            let draining = |id: &AgentId| {
                self.state
                    .agent(*id)
                    .is_some_and(|agent| agent.phase == Phase::Draining)
            };
            self.observed
                .condemned
                .extend(over.remove().into_iter().filter(draining));
        }
    }

    /// Says so where the clock stands before what was seen.
    pub(super) fn compare_clock(&mut self) {
        let latest: Time = self.state.trust().latest;
        if latest > self.now.after(CLOCK_SKEW) {
            let behind = latest.since(self.now);
            self.emit(Event::TimeSeen { at: self.now });
            let detail = format!(
                "the clock stands {behind} before the latest time that was seen; what has expired stays expired"
            );
            let entry = self.entry(Kind::ClockBack, detail);
            self.audit.push(entry);
        }
    }

    fn tell(&mut self, kind: Kind, detail: String, what: Changed) {
        let entry = self.entry(kind, detail);
        self.audit.push(entry);
        self.notice(None, what);
    }
}

impl State {
    /// What would be remembered of the signature of a plugin if it were installed now: every rule for a signed plugin, in the order of the
    /// checks. The installation asks this; whoever asks it before saves the work of compiling what would be refused.
    ///
    /// # Errors
    /// The first rule that refuses; last of all those that a person can answer, [`Reason::FirstContact`] and [`Reason::ApprovalRequired`].
    pub fn admit(
        &self,
        now: Time,
        plugin: &Plugin,
        signed: &Signed,
        consent: &Consent,
    ) -> Result<Signature, Rejection> {
        let (release, trust) = (&signed.release, self.trust());
        let name = &release.plugin;
        let about = &plugin.manifest.plugin;
        reason_fits(consent.downgrade.as_deref())?;
        if plugin.digest != release.component.sha256 {
            return Err(Rejection::new(
                Reason::Modified,
                "the file is not the one that was signed",
            ));
        }
        if about.name != *name || about.version != release.version {
            let message = format!(
                "{name}@{} was signed, but the manifest in the file says {}@{}",
                release.version, about.name, about.version
            );
            return Err(Rejection::new(Reason::InvalidRelease, message));
        }
        let publisher = trust.publisher(name.publisher()).map(|trusted| &trusted.publisher);
        let needed = publisher.map_or(1, |publisher| grant::signatures_needed(&plugin.manifest, publisher));
        let signers = trust.admits(trust.time(now), signed, needed, consent.downgrade.is_some())?;
        if let Some(publisher) = publisher {
            grant::within(&plugin.manifest, &publisher.ceiling)?;
        }
        self.contacted(plugin, consent)?;
        self.approved(plugin, consent)?;
        Ok(Signature {
            statement: signed.statement,
            release_seq: release.release_seq,
            signers,
            needed,
            expires: release.expires,
        })
    }

    /// The first plugin of a publisher, and one that comes back, take the publisher's name, typed by a person.
    fn contacted(&self, plugin: &Plugin, consent: &Consent) -> Result<(), Rejection> {
        let name = &plugin.manifest.plugin.name;
        let publisher = name.publisher();
        if !self.is_first_contact(plugin) || consent.publisher.as_deref() == Some(publisher) {
            return Ok(());
        }
        let message = match &consent.publisher {
            None if self.trust().is_stranger(publisher) => {
                format!("no plugin of `{publisher}` was installed here before; type the publisher's name to agree")
            }
            None => format!(
                "{name} was here before, and no release of it is left to compare this one with; type the publisher's name to agree"
            ),
            Some(typed) => format!(
                "the publisher is `{publisher}`, not `{}`",
                typed.chars().take(64).collect::<String>()
            ),
        };
        Err(Rejection::new(Reason::FirstContact, message))
    }

    /// An update that asks for more than what is installed takes a person's approval of both files.
    fn approved(&self, plugin: &Plugin, consent: &Consent) -> Result<(), Rejection> {
        let Some(before) = self.newest(plugin) else {
            return Ok(());
        };
        let wider = widening::widenings((&before.manifest, &before.imports), (&plugin.manifest, &plugin.imports));
        if wider.is_empty() || consent.widening == Some((before.digest, plugin.digest)) {
            return Ok(());
        }
        let list: Vec<String> = wider.iter().map(ToString::to_string).collect();
        let message = format!(
            "it asks for more than {}@{}: {}; approve the change from sha256:{} to sha256:{}",
            before.manifest.plugin.name,
            before.manifest.plugin.version,
            list.join("; "),
            before.digest,
            plugin.digest
        );
        Err(Rejection::new(Reason::ApprovalRequired, message))
    }
}

/// Whether there is anything to end in an agent of this phase.
fn active(phase: Phase) -> bool {
    phase.may_serve() || matches!(phase, Phase::Draining | Phase::Failed)
}

/// What a document says on its own account is checked where it is read, and once more where it is adopted.
fn sound<D: Document>(document: &D) -> Result<(), Rejection> {
    match document.fault() {
        None => Ok(()),
        Some(fault) => Err(Rejection::new(Reason::InvalidMetadata, format!("{}: {fault}", D::NAME))),
    }
}

fn full() -> Rejection {
    let message = format!("a host remembers at most {MAX_REVOCATIONS} revocations");
    Rejection::new(Reason::Overloaded, message)
}

fn reason_fits(why: Option<&str>) -> Result<(), Rejection> {
    match why {
        Some(why) if why.trim().is_empty() || why.len() > MAX_REASON_BYTES => Err(Rejection::invalid(format!(
            "a reason has 1 to {MAX_REASON_BYTES} bytes"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a record that would not fit in a frame with what follows from it.
pub(super) fn small_enough<T: minicbor::Encode<()>>(record: &T) -> Result<(), Rejection> {
    let bytes = encode(record).len();
    if bytes > MAX_DECISION_BYTES {
        let message = format!("its record would have {bytes} bytes, at most {MAX_DECISION_BYTES}");
        return Err(Rejection::new(Reason::BodyLimit, message));
    }
    Ok(())
}
