//! What is trusted and what may be installed: every rule, and every reason for which a plugin or a document of trust is refused.

use skep_rules::{
    audit::Kind,
    command::{Command, Consent},
    id::Digest,
    key::PublicKey,
    limits::CLOCK_SKEW,
    metadata::Publisher,
    quantity::Time,
    reason::Reason,
    shard::Shard,
    trust::Revocation,
};

use crate::{
    bench::{Bench, CREW, plugin},
    documents::rooted,
    fixtures::{DAY, START, Ship, ids, key, keys, later, publisher, remove, reset_time, revoke, ship, trust},
};

/// What happens before the command of a case.
#[expect(clippy::large_enum_variant, reason = "a case has a few of them")]
pub(crate) enum Step {
    /// This is asked, and done.
    Ask(Command),
    /// The clock of the machine is set to so many days after the start.
    Day(u64),
    /// It is set to so many days before.
    Before(u64),
}
use Step::{Ask, Before, Day};

/// Its name, what happened before, what is asked, and what comes of it.
pub(crate) type Case<'a> = (&'a str, Vec<Step>, Command, Result<(), Reason>);

pub(crate) fn host() -> Bench {
    let mut bench = Bench::empty();
    bench.shard.take_unsigned(false);
    bench.now = START;
    bench
}

pub(crate) fn step(bench: &mut Bench, step: Step) {
    match step {
        Ask(command) => drop(bench.ask(command).unwrap()),
        Day(days) => bench.now = later(START, days),
        Before(days) => bench.now = Time(START.0 - days * DAY),
    }
}

/// The shard that a restart would find.
fn recovered(bench: &Bench) -> Shard {
    let mut again = Shard::default();
    for (entry, position) in bench.entries.iter().zip(1..) {
        again.replay(position, entry).unwrap();
    }
    again
}

/// Asks something of a host to which this has happened: it is done, or refused for this reason and nothing has changed.
pub(crate) fn check(what: &str, before: Vec<Step>, command: Command, after: Result<(), Reason>) -> Bench {
    let mut bench = host();
    for happened in before {
        step(&mut bench, happened);
    }
    let (state, entries, audit) = (bench.state().clone(), bench.entries.len(), bench.audit.len());
    let answer = bench.ask(command);
    assert_eq!(
        answer.as_ref().map(drop).map_err(|rejection| rejection.reason),
        after.as_ref().map(drop).map_err(|reason| *reason),
        "{what}: {answer:?}"
    );
    if after.is_err() {
        assert_eq!(*bench.state(), state, "{what}: what is refused changes nothing");
        assert_eq!((bench.entries.len(), bench.audit.len()), (entries, audit), "{what}");
    }
    let again = recovered(&bench);
    assert_eq!(again.state().trust(), bench.state().trust(), "{what}");
    assert!(again.state().plugins().eq(bench.state().plugins()), "{what}");
    bench
}

/// `acme` signs with keys 1, 2 and 3, of which one suffices; its recovery key is 9.
pub(crate) fn acme() -> Publisher {
    publisher("acme", keys(1, &[1, 2, 3]), 9, START)
}

pub(crate) fn bolt() -> Publisher {
    publisher("bolt", keys(1, &[11]), 19, START)
}

pub(crate) fn trusting(alter: impl FnOnce(&mut Publisher)) -> Vec<Step> {
    let mut publisher = acme();
    alter(&mut publisher);
    vec![Ask(trust(publisher)), Ask(trust(bolt()))]
}

pub(crate) fn one() -> Ship {
    ship("acme/tool", 1, "")
}

pub(crate) fn two() -> Ship {
    ship("acme/tool", 2, "").after(Some(one().statement()))
}

pub(crate) fn tool() -> skep_rules::id::PluginName {
    "acme/tool".parse().unwrap()
}

fn below(minimum: u64) -> Step {
    Ask(revoke(Revocation::Below {
        plugin: tool(),
        minimum,
    }))
}

pub(crate) fn revoked_key(number: u8) -> Step {
    Ask(revoke(Revocation::Key(key(number).id())))
}

#[test]
fn a_release_is_installed_when_every_rule_holds() {
    use Reason::{
        CeilingExceeded, Expired, FirstContact, InvalidInput, InvalidRelease, Modified, NotYetValid, Revoked,
        SignatureMissing, SignerUntrusted, ThresholdUnmet, UnsupportedHost,
    };
    let plain = || trusting(|_| {});
    let with = |more: Vec<Step>| plain().into_iter().chain(more).collect::<Vec<_>>();
    let writes = "[wants]\nfiles = [{ mount = '/out', access = 'write' }]";
    let wild = "[wants]\nhttp = [{ host = '*.example.com' }]";
    let far = |publisher: &mut Publisher| publisher.ceiling.files = Some(skep_rules::manifest::Access::Write);
    let elsewhere = |ship: &mut Ship| ship.release.plugin = "acme/other".parse().unwrap();
    // One case per line.
    #[rustfmt::skip]
    let cases: Vec<Case<'_>> = vec![
        ("good", plain(), one().command(), Ok(())),
        ("by two keys", plain(), one().with(|it| it.signers = vec![1, 3]).command(), Ok(())),
        ("no envelope", plain(), one().unsigned(), Err(SignatureMissing)),
        ("revoked and no envelope", with(vec![Ask(revoke(Revocation::Digest(one().plugin.digest)))]), one().unsigned(), Err(Revoked)),
        ("nobody is trusted", vec![], one().command(), Err(SignerUntrusted)),
        ("a stranger's key", plain(), one().with(|it| it.signers = vec![77]).command(), Err(SignerUntrusted)),
        ("no key at all", plain(), one().with(|it| it.signers = vec![]).command(), Err(SignerUntrusted)),
        ("another publisher's key", plain(), one().with(|it| it.signers = vec![11]).command(), Err(SignerUntrusted)),
        ("the recovery key", plain(), one().with(|it| it.signers = vec![9]).command(), Err(SignerUntrusted)),
        ("a name that it may not sign", trusting(|it| it.plugins = Some(["other".parse().unwrap()].into())), one().command(), Err(SignerUntrusted)),
        ("a name that it may sign", trusting(|it| it.plugins = Some(["tool".parse().unwrap()].into())), one().command(), Ok(())),
        ("one of two", trusting(|it| it.release.threshold = 2), one().command(), Err(ThresholdUnmet)),
        ("one of two and a foreign one", trusting(|it| it.release.threshold = 2), one().with(|it| it.signers = vec![1, 11]).command(), Err(ThresholdUnmet)),
        ("two of two", trusting(|it| it.release.threshold = 2), one().with(|it| it.signers = vec![1, 2]).command(), Ok(())),
        ("writes, signed once", trusting(far), ship("acme/tool", 1, writes).command(), Err(ThresholdUnmet)),
        ("writes, signed twice", trusting(far), ship("acme/tool", 1, writes).with(|it| it.signers = vec![1, 2]).command(), Ok(())),
        ("wildcard, signed once", plain(), ship("acme/tool", 1, wild).command(), Err(ThresholdUnmet)),
        ("wildcard, signed twice", plain(), ship("acme/tool", 1, wild).with(|it| it.signers = vec![2, 3]).command(), Ok(())),
        ("its key is revoked", with(vec![revoked_key(1)]), one().command(), Err(Revoked)),
        ("one of its two keys is revoked", with(vec![revoked_key(1)]), one().with(|it| it.signers = vec![1, 2]).command(), Ok(())),
        ("too few are left", trusting(|it| it.release.threshold = 2).into_iter().chain([revoked_key(1)]).collect(), one().with(|it| it.signers = vec![1, 2]).command(), Err(ThresholdUnmet)),
        ("its file is revoked", with(vec![Ask(revoke(Revocation::Digest(one().plugin.digest)))]), one().command(), Err(Revoked)),
        ("its release is revoked", with(vec![below(2)]), one().command(), Err(Revoked)),
        ("releases below it are", with(vec![below(2)]), two().command(), Ok(())),
        ("another file than signed", plain(), one().with(|it| it.plugin.digest = Digest::of(b"x")).command(), Err(Modified)),
        ("another name than signed", plain(), one().with(elsewhere).command(), Err(InvalidRelease)),
        ("another version than signed", plain(), one().with(|it| it.release.version = "9.0.0".parse().unwrap()).command(), Err(InvalidRelease)),
        ("the publisher's last day", with(vec![Day(299)]), one().command(), Ok(())),
        ("the publisher's trust is over", with(vec![Day(300)]), one().with(|it| it.release.expires = later(START, 399)).command(), Err(Expired)),
        ("the release is over", with(vec![Day(30)]), one().with(|it| it.release.expires = later(START, 30)).command(), Err(Expired)),
        ("within the skew", plain(), one().with(|it| it.release.not_before = START.after(CLOCK_SKEW)).command(), Ok(())),
        ("not valid yet", plain(), one().with(|it| it.release.not_before = later(START, 1)).command(), Err(NotYetValid)),
        ("a newer contract", plain(), one().with(|it| it.release.host_api = "0.2.0".parse().unwrap()).command(), Err(UnsupportedHost)),
        ("an older contract", plain(), one().with(|it| it.release.host_api = "0.0.9".parse().unwrap()).command(), Ok(())),
        ("passes the ceiling", plain(), ship("acme/tool", 1, "[limits]\ntier = 'large'").command(), Err(CeilingExceeded)),
        ("nobody typed the name", plain(), one().with(|it| it.consent = Consent::default()).command(), Err(FirstContact)),
        ("another name was typed", plain(), one().with(|it| it.consent.publisher = Some("bolt".into())).command(), Err(FirstContact)),
        ("an empty reason", plain(), one().with(|it| it.consent.downgrade = Some(" ".into())).command(), Err(InvalidInput)),
    ];
    for (what, before, command, after) in cases {
        let bench = check(what, before, command, after);
        if after.is_ok() {
            let installed = bench.state().plugins().next().unwrap();
            let signature = installed.signed.as_ref().unwrap();
            assert!(
                signature.signers.is_subset(&ids(&[1, 2, 3])),
                "{what}: only its own keys count"
            );
            assert_eq!(bench.heard(Kind::PluginInstalled).len(), 1, "{what}");
            assert_eq!(bench.entries.len(), usize::try_from(bench.shard.position()).unwrap());
        }
    }
}

#[test]
fn what_was_installed_before_decides_what_comes_after() {
    use Reason::{ApprovalRequired, Conflict, FirstContact, InvalidRelease, Revoked, Rollback, SignatureMissing};
    let with = |more: Vec<Step>| trusting(|_| {}).into_iter().chain(more).collect::<Vec<_>>();
    let has = |ships: &[&Ship]| with(ships.iter().map(|ship| Ask(ship.command())).collect());
    let older = |why: &str| {
        let why = Some(why.to_owned());
        one().with(|it| it.consent.downgrade = why)
    };
    let wider = || ship("acme/tool", 2, "[wants]\nworkspace = '1MiB'").after(Some(one().statement()));
    let approve = |from: Digest, to: Digest| move |it: &mut Ship| it.consent.widening = Some((from, to));
    let (first, second) = (one().plugin.digest, wider().plugin.digest);
    let last = || ship("acme/tool", u64::MAX, "");
    let five = ship("acme/tool", 5, "");
    let again = |seq: u64| {
        one()
            .with(|it| (it.release.release_seq, it.release.contact) = (seq, "again".into()))
            .with(|it| it.plugin.manifest = ship("acme/tool", 1, "").plugin.manifest)
    };
    let untyped = |ship: Ship| ship.with(|it| it.consent.publisher = None);
    let gone = || with(vec![Ask(one().command()), Ask(remove(first))]);
    // One case per line.
    #[rustfmt::skip]
    let cases: Vec<Case<'_>> = vec![
        ("the next", has(&[&one()]), untyped(two()).command(), Ok(())),
        ("the next, when the one before is gone", gone(), untyped(two()).command(), Err(FirstContact)),
        ("and with the name typed again", gone(), two().command(), Ok(())),
        ("the next, when the one before is revoked", has(&[&one()]).into_iter().chain([below(2)]).collect(), untyped(two()).command(), Err(FirstContact)),
        ("the same again", has(&[&one()]), untyped(one()).command(), Ok(())),
        ("the same again, bare", has(&[&one()]), one().unsigned(), Ok(())),
        ("the same again, removed before", has(&[&one()]).into_iter().chain([Ask(remove(first))]).collect(), one().command(), Ok(())),
        ("the same again, revoked since", has(&[&one()]).into_iter().chain([revoked_key(1)]).collect(), one().command(), Err(Revoked)),
        ("an older one", has(&[&five]), one().command(), Err(Rollback)),
        ("an older one, the newest removed", has(&[&five]).into_iter().chain([Ask(remove(five.plugin.digest))]).collect(), one().command(), Err(Rollback)),
        ("an older one on purpose", has(&[&five]), older("the newer one is slow").command(), Ok(())),
        ("an older one that is revoked, on purpose", has(&[&five]).into_iter().chain([below(2)]).collect(), older("x").command(), Err(Revoked)),
        ("the same number, another file", has(&[&one()]), one().holding(b"x").command(), Err(Rollback)),
        ("the same number, another file, on purpose", has(&[&one()]), older("x").holding(b"x").command(), Err(Rollback)),
        ("a later number, the version of another file", has(&[&one()]), again(2).holding(b"x").after(Some(one().statement())).command(), Err(Conflict)),
        ("the next of another", has(&[&one()]), two().with(|it| it.release.previous = Some(Digest::of(b"x"))).command(), Err(Rollback)),
        ("the next of nobody", has(&[&one()]), ship("acme/tool", 2, "").command(), Err(Rollback)),
        ("a later one of which the one before was not seen", has(&[&one()]), five.command(), Ok(())),
        ("the last number there is", has(&[&one()]), last().command(), Ok(())),
        ("after the last number", has(&[&last()]), one().command(), Err(Rollback)),
        ("the last number with another file", has(&[&last()]), last().holding(b"x").command(), Err(Rollback)),
        ("it asks for more", has(&[&one()]), wider().command(), Err(ApprovalRequired)),
        ("it asks for more, approved", has(&[&one()]), wider().with(approve(first, second)).command(), Ok(())),
        ("another change was approved", has(&[&one()]), wider().with(approve(Digest::of(b"x"), second)).command(), Err(ApprovalRequired)),
        ("the way back was approved", has(&[&one()]), wider().with(approve(second, first)).command(), Err(ApprovalRequired)),
        ("signed for another name", has(&[&one()]), one().with(|it| it.release.plugin = "bolt/tool".parse().unwrap()).holding(b"x").command(), Err(InvalidRelease)),
        ("unsigned beside it", has(&[&one()]), two().unsigned(), Err(SignatureMissing)),
    ];
    for (what, before, command, after) in cases {
        check(what, before, command, after);
    }
    let bench = check(
        "on purpose",
        has(&[&five]),
        older("the newer one is slow").command(),
        Ok(()),
    );
    assert!(
        bench
            .audit
            .iter()
            .any(|entry| entry.detail.contains("the newer one is slow")),
        "the reason is on record"
    );
    assert_eq!(
        bench.state().trust().highest(&tool()).unwrap().release_seq,
        5,
        "and the highest stays"
    );
}

#[test]
fn a_plugin_that_was_taken_unsigned_may_be_signed_later() {
    let mut bench = host();
    for happened in trusting(|_| {}) {
        step(&mut bench, happened);
    }
    bench.shard.take_unsigned(true);
    bench.ask(one().unsigned()).unwrap();
    let revision = |bench: &Bench| bench.state().plugins().next().unwrap().revision;
    assert_eq!((revision(&bench), bench.state().trust().highest(&tool())), (1, None));
    let untyped = one().with(|it| it.consent.publisher = None);
    assert_eq!(bench.ask(untyped.command()).unwrap_err().reason, Reason::FirstContact);
    bench.ask(one().command()).unwrap();
    assert_eq!(revision(&bench), 2);
    assert_eq!(bench.state().trust().highest(&tool()).unwrap().release_seq, 1);
    assert_eq!(recovered(&bench).state().trust(), bench.state().trust());
}

#[test]
fn a_plugin_is_removed_when_no_crew_uses_it_and_its_number_stays() {
    let mut bench = host();
    bench.shard.take_unsigned(true);
    let worker = plugin("worker", &[skep_rules::seam::Export::Executor], "\"work\"", "");
    let digest = worker.digest;
    let install = Command::InstallPlugin {
        plugin: worker,
        by: "tests".into(),
        signed: None,
        consent: Consent::default(),
    };
    assert_eq!(bench.ask(remove(digest)).unwrap_err().reason, Reason::NotFound);
    bench.ask(install).unwrap();
    bench.assemble(CREW).unwrap();
    bench.warm();
    assert_eq!(bench.ask(remove(digest)).unwrap_err().reason, Reason::Conflict);
    let (crew, by) = (bench.crew, "tests".to_owned());
    bench.ask(Command::DrainCrew { crew, by }).unwrap();
    bench.ask(remove(digest)).unwrap();
    assert_eq!(
        (bench.state().plugins().count(), bench.heard(Kind::PluginRemoved).len()),
        (0, 1)
    );

    let installed = trusting(|_| {}).into_iter().chain([Ask(one().command())]).collect();
    let bench = check("signed", installed, remove(one().plugin.digest), Ok(()));
    assert_eq!(bench.state().trust().highest(&tool()).unwrap().release_seq, 1);
}

#[test]
fn time_does_not_go_back_but_by_a_persons_word() {
    let ten_years = 3_653;
    let brief = || one().with(|it| it.release.expires = later(START, 9));
    let plain = || trusting(|_| {});
    let on = |day: Step, more: Vec<Step>| {
        plain()
            .into_iter()
            .chain([day, revoked_key(99)])
            .chain(more)
            .collect::<Vec<_>>()
    };
    check(
        "seen later",
        on(Day(10), vec![Day(0)]),
        brief().command(),
        Err(Reason::Expired),
    );
    check(
        "set back ten years",
        on(Day(10), vec![Before(ten_years)]),
        brief().command(),
        Err(Reason::Expired),
    );
    check(
        "set ahead ten years",
        on(Day(ten_years), vec![Day(1)]),
        brief().command(),
        Err(Reason::Expired),
    );
    let bench = check(
        "and set right",
        on(Day(ten_years), vec![Day(1), Ask(reset_time())]),
        brief().command(),
        Ok(()),
    );
    assert_eq!(bench.heard(Kind::TimeReset).len(), 1);

    let mut bench = host();
    plain().into_iter().for_each(|happened| step(&mut bench, happened));
    assert_eq!(
        bench.shard.next_wake(bench.now),
        Some(bench.now),
        "an idle host takes note of the time as well"
    );
    bench.pass(10 * DAY);
    assert_eq!(bench.state().trust().time(START), later(START, 10));
    bench.now = START;
    bench.restart();
    let said = bench.heard(Kind::ClockBack);
    assert!(said.len() == 1 && said[0].detail.contains("10d"), "{said:?}");
    assert_eq!(bench.ask(brief().command()).unwrap_err().reason, Reason::Expired);
}

#[test]
fn the_time_that_was_seen_is_one_small_record_of_a_checkpoint() {
    let mut bench = host();
    for days in 0..100 {
        step(&mut bench, Day(days));
        step(&mut bench, revoked_key(99));
    }
    bench.shard.checkpoint();
    bench.pass(2 * 3_600_000);
    let records = bench.shard.checkpoint().records;
    let bytes: usize = records
        .iter()
        .map(|(key, value)| key.len() + value.as_ref().unwrap().len())
        .sum();
    assert!(records.len() == 1 && bytes <= 16, "{records:?}");
    bench.pass(60_000);
    assert_eq!(
        bench.shard.checkpoint().records,
        [],
        "a minute later nothing is worth a record"
    );
}

#[test]
fn a_refusal_is_put_on_record() {
    let mut bench = host();
    let command = Command::NoteRefusal {
        reason: Reason::Modified,
        detail: "acme/tool".into(),
        by: "tests".into(),
    };
    bench.ask(command).unwrap();
    let heard = bench.heard(Kind::Refused);
    assert!(heard.len() == 1 && heard[0].reason == Some(Reason::Modified) && heard[0].detail == "acme/tool");
    assert_eq!(bench.entries.len(), 1, "audit entries need an entry to travel with");
    assert_eq!(
        (
            bench.state().plugins().count(),
            bench.state().trust().publishers().count()
        ),
        (0, 0)
    );
}

#[test]
fn the_keys_of_a_host_are_all_that_may_sign_something() {
    let mut bench = host();
    rooted(vec![])
        .into_iter()
        .for_each(|happened| step(&mut bench, happened));
    let expected: Vec<PublicKey> = [1, 2, 3, 9, 11, 19, 40, 50, 60].map(key).into();
    assert_eq!(bench.state().trust().keys().into_iter().collect::<Vec<_>>(), expected);
}
