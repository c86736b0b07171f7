//! What is trusted and what may be installed: every rule, and every reason for which a plugin or a document of trust is refused.

use skep_rules::{
    audit::Kind,
    command::{Command, Consent},
    id::Digest,
    key::PublicKey,
    limits::{CLOCK_SKEW, MAX_REVOCATIONS},
    metadata::{Newest, Publisher, Root},
    quantity::Time,
    reason::Reason,
    shard::Shard,
    trust::Revocation,
};

use crate::{
    bench::{Bench, CREW, plugin},
    fixtures::{
        DAY, START, Ship, adopt_clock, adopt_index, adopt_root, clock, digest_of, ids, index, key, keys, later,
        publisher, remove, reset_time, revoke, root, rotate, rotation, ship, trust,
    },
};

/// What happens before the command of a case.
#[expect(clippy::large_enum_variant, reason = "a case has a few of them")]
enum Step {
    /// This is asked, and done.
    Ask(Command),
    /// The clock of the machine is set to so many days after the start.
    Day(u64),
    /// It is set to so many days before.
    Before(u64),
}
use Step::{Ask, Before, Day};

/// Its name, what happened before, what is asked, and what comes of it.
type Case<'a> = (&'a str, Vec<Step>, Command, Result<(), Reason>);

fn host() -> Bench {
    let mut bench = Bench::empty();
    bench.shard.take_unsigned(false);
    bench.now = START;
    bench
}

fn step(bench: &mut Bench, step: Step) {
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
fn check(what: &str, before: Vec<Step>, command: Command, after: Result<(), Reason>) -> Bench {
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
fn acme() -> Publisher {
    publisher("acme", keys(1, &[1, 2, 3]), 9, START)
}

fn bolt() -> Publisher {
    publisher("bolt", keys(1, &[11]), 19, START)
}

fn trusting(alter: impl FnOnce(&mut Publisher)) -> Vec<Step> {
    let mut publisher = acme();
    alter(&mut publisher);
    vec![Ask(trust(publisher)), Ask(trust(bolt()))]
}

fn one() -> Ship {
    ship("acme/tool", 1, "")
}

fn two() -> Ship {
    ship("acme/tool", 2, "").after(Some(one().statement()))
}

fn tool() -> skep_rules::id::PluginName {
    "acme/tool".parse().unwrap()
}

fn below(minimum: u64) -> Step {
    Ask(revoke(Revocation::Below {
        plugin: tool(),
        minimum,
    }))
}

fn revoked_key(number: u8) -> Step {
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
    use Reason::{ApprovalRequired, Conflict, InvalidRelease, Revoked, Rollback, SignatureMissing};
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
    // One case per line.
    #[rustfmt::skip]
    let cases: Vec<Case<'_>> = vec![
        ("the next", has(&[&one()]), untyped(two()).command(), Ok(())),
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
fn who_is_trusted_is_the_operators_word_until_there_is_a_root() {
    use Reason::{Conflict, Expired, InvalidMetadata, NotFound, Revoked, SignerUntrusted};
    let alter = |change: fn(&mut Publisher)| {
        let mut publisher = acme();
        change(&mut publisher);
        trust(publisher)
    };
    let first = || adopt_root(&root(1, [40, 50, 60], vec![acme()], START), &[40]);
    let gone = |name: &str| revoke(Revocation::Publisher(name.parse().unwrap()));
    // One case per line.
    #[rustfmt::skip]
    let cases: Vec<Case<'_>> = vec![
        ("good", vec![], alter(|_| {}), Ok(())),
        ("without a recovery key", vec![], alter(|it| it.recovery = None), Ok(())),
        ("no keys", vec![], alter(|it| it.release = keys(1, &[])), Err(InvalidMetadata)),
        ("more signatures than keys", vec![], alter(|it| it.release = keys(4, &[1, 2, 3])), Err(InvalidMetadata)),
        ("no signatures", vec![], alter(|it| it.release = keys(0, &[1])), Err(InvalidMetadata)),
        ("the recovery key signs releases", vec![], alter(|it| it.recovery = Some(key(1))), Err(InvalidMetadata)),
        ("no names", vec![], alter(|it| it.plugins = Some([].into())), Err(InvalidMetadata)),
        ("for too long", vec![], alter(|it| it.expires = later(START, 401)), Err(InvalidMetadata)),
        ("over already", vec![], alter(|it| it.expires = START), Err(Expired)),
        ("over by the latest time seen", vec![Day(10), Ask(trust(bolt())), Day(0)], alter(|it| it.expires = later(START, 9)), Err(Expired)),
        ("a key of another", vec![Ask(trust(bolt()))], alter(|it| it.release = keys(1, &[11])), Err(Conflict)),
        ("the recovery key of another", vec![Ask(trust(bolt()))], alter(|it| it.recovery = Some(key(19))), Err(Conflict)),
        ("a revoked key", vec![revoked_key(2)], alter(|_| {}), Err(Revoked)),
        ("said anew", trusting(|_| {}), alter(|it| it.release = keys(1, &[4])), Ok(())),
        ("after a root", vec![Ask(first())], trust(bolt()), Err(SignerUntrusted)),
        ("revoked", trusting(|_| {}), gone("acme"), Ok(())),
        ("revoked twice", trusting(|_| {}).into_iter().chain([Ask(gone("acme"))]).collect(), gone("acme"), Err(NotFound)),
        ("trusted again with its old keys", trusting(|_| {}).into_iter().chain([Ask(gone("acme"))]).collect(), trust(acme()), Err(Revoked)),
    ];
    for (what, before, command, after) in cases {
        check(what, before, command, after);
    }
}

fn rooted(more: Vec<Step>) -> Vec<Step> {
    let first = root(1, [40, 50, 60], vec![acme(), bolt()], START);
    [Ask(adopt_root(&first, &[40]))].into_iter().chain(more).collect()
}

fn next(alter: impl FnOnce(&mut Root)) -> Root {
    let mut next = root(2, [40, 50, 60], vec![acme(), bolt()], START);
    alter(&mut next);
    next
}

#[test]
fn a_root_is_adopted_when_the_one_before_and_itself_say_so() {
    use Reason::{Expired, InvalidMetadata, NotYetValid, Rollback, ThresholdUnmet};
    let first = |alter: fn(&mut Root), signers: &[u8]| {
        let mut first = root(7, [40, 50, 60], vec![acme()], START);
        alter(&mut first);
        adopt_root(&first, signers)
    };
    // One case per line.
    #[rustfmt::skip]
    let cases: Vec<Case<'_>> = vec![
        ("the first, of any version", vec![], first(|_| {}, &[40]), Ok(())),
        ("the first, unsigned by itself", vec![], first(|_| {}, &[41]), Err(ThresholdUnmet)),
        ("the first, one of two", vec![], first(|it| it.root = keys(2, &[40, 41]), &[40]), Err(ThresholdUnmet)),
        ("the first, expired", vec![], first(|it| (it.issued, it.expires) = (Time(1), START), &[40]), Err(InvalidMetadata)),
        ("of another format", vec![], first(|it| it.format = 2, &[40]), Err(InvalidMetadata)),
        ("a publisher twice", vec![], first(|it| it.publishers.push(acme()), &[40]), Err(InvalidMetadata)),
        ("a publisher for too long", vec![], first(|it| it.publishers[0].expires = Time(u64::MAX), &[40]), Err(InvalidMetadata)),
        ("with a revoked key", vec![revoked_key(40)], first(|_| {}, &[40]), Err(ThresholdUnmet)),
        ("the next", rooted(vec![]), adopt_root(&next(|_| {}), &[40]), Ok(())),
        ("the same again", rooted(vec![]), adopt_root(&next(|it| it.version = 1), &[40]), Err(Rollback)),
        ("an older one", rooted(vec![Ask(adopt_root(&next(|_| {}), &[40]))]), adopt_root(&next(|it| it.version = 1), &[40]), Err(Rollback)),
        ("one is skipped", rooted(vec![]), adopt_root(&next(|it| it.version = 3), &[40]), Err(InvalidMetadata)),
        ("new keys, signed by both", rooted(vec![]), adopt_root(&next(|it| it.root = keys(1, &[41])), &[40, 41]), Ok(())),
        ("new keys, unsigned by the old", rooted(vec![]), adopt_root(&next(|it| it.root = keys(1, &[41])), &[41]), Err(ThresholdUnmet)),
        ("new keys, unsigned by the new", rooted(vec![]), adopt_root(&next(|it| it.root = keys(1, &[41])), &[40]), Err(ThresholdUnmet)),
        ("over", rooted(vec![Day(200)]), adopt_root(&next(|_| {}), &[40]), Err(Expired)),
        ("after the one before is over", rooted(vec![Day(201)]), adopt_root(&next(|it| it.expires = later(START, 300)), &[40]), Ok(())),
        ("not valid yet", rooted(vec![]), adopt_root(&next(|it| it.issued = later(START, 1)), &[40]), Err(NotYetValid)),
    ];
    for (what, before, command, after) in cases {
        check(what, before, command, after);
    }
}

#[test]
fn a_new_root_says_anew_who_is_trusted_and_repairs_the_counters_of_roles() {
    let mut far = index(u64::MAX, START);
    far.revoked.version = u64::MAX;
    // Whoever stole the index's keys revokes the root's as well, and a publisher's.
    far.revoked.keys = ids(&[40, 11]);
    let stuck = || {
        let clock = clock(u64::MAX, &far, START);
        rooted(vec![
            Ask(one().command()),
            Ask(adopt_index(&far, &[50])),
            Ask(adopt_clock(&clock, &[60])),
        ])
    };
    let plain = index(1, START);
    check(
        "an index after the last",
        stuck(),
        adopt_index(&plain, &[50]),
        Err(Reason::Rollback),
    );
    let repaired = next(|it| (it.index, it.clock) = (Some(keys(1, &[51])), Some(keys(1, &[61]))));
    let mended = || {
        stuck()
            .into_iter()
            .chain([Ask(adopt_root(&repaired, &[40]))])
            .collect::<Vec<_>>()
    };
    let mut second = index(2, START);
    second.revoked.version = 1;
    let more = |steps: Vec<Step>| mended().into_iter().chain(steps).collect();
    check(
        "the first of the new keys",
        mended(),
        adopt_index(&plain, &[51]),
        Ok(()),
    );
    check(
        "by the old keys",
        mended(),
        adopt_index(&plain, &[50]),
        Err(Reason::ThresholdUnmet),
    );
    check(
        "and the second",
        more(vec![Ask(adopt_index(&plain, &[51]))]),
        adopt_index(&second, &[51]),
        Ok(()),
    );
    check(
        "and a clock",
        mended(),
        adopt_clock(&clock(1, &plain, START), &[61]),
        Ok(()),
    );
    check(
        "what was revoked stays so",
        mended(),
        ship("bolt/x", 1, "").with(|it| it.signers = vec![11]).command(),
        Err(Reason::Revoked),
    );

    let without = next(|it| it.publishers.truncate(1));
    let only_bolt = next(|it| drop(it.publishers.remove(0)));
    let has = || rooted(vec![Ask(one().command())]);
    let bench = check("without bolt", has(), adopt_root(&without, &[40]), Ok(()));
    assert!(!bench.state().is_void(one().plugin.digest), "acme's stay");
    let bench = check("without acme", has(), adopt_root(&only_bolt, &[40]), Ok(()));
    assert!(
        bench.state().is_void(one().plugin.digest),
        "what nobody trusted signs falls"
    );
    assert!(bench.state().trust().publisher("acme").is_none());
}

#[test]
fn a_publisher_changes_its_keys_with_those_of_before_and_its_recovery_key() {
    use Reason::{
        Conflict, Expired, InvalidMetadata, NotFound, NotYetValid, Revoked, Rollback, SignerUntrusted, ThresholdUnmet,
    };
    let turn = |version, release: &[u8]| rotation("acme", version, keys(1, release), 8, START);
    let plain = || trusting(|_| {});
    let with = |more: Vec<Step>| plain().into_iter().chain(more).collect::<Vec<_>>();
    let turned = || with(vec![Ask(rotate(&turn(1, &[4]), &[1, 9]))]);
    let spoiled = |alter: fn(&mut skep_rules::metadata::Rotation)| {
        let mut rotation = turn(1, &[4]);
        alter(&mut rotation);
        rotate(&rotation, &[1, 9])
    };
    // One case per line.
    #[rustfmt::skip]
    let cases: Vec<Case<'_>> = vec![
        ("good", plain(), rotate(&turn(1, &[4]), &[1, 9]), Ok(())),
        ("without the recovery key", plain(), rotate(&turn(1, &[4]), &[1, 2, 3]), Err(ThresholdUnmet)),
        ("the new recovery key alone", plain(), rotate(&turn(1, &[4]), &[1, 8]), Err(ThresholdUnmet)),
        ("the recovery key alone", plain(), rotate(&turn(1, &[4]), &[9]), Err(ThresholdUnmet)),
        ("too few of before", trusting(|it| it.release.threshold = 2), rotate(&turn(1, &[4]), &[1, 9]), Err(ThresholdUnmet)),
        ("by a revoked key", with(vec![revoked_key(1)]), rotate(&turn(1, &[4]), &[1, 9]), Err(ThresholdUnmet)),
        ("by a revoked recovery key", with(vec![revoked_key(9)]), rotate(&turn(1, &[4]), &[1, 9]), Err(ThresholdUnmet)),
        ("one that has none", trusting(|it| it.recovery = None), rotate(&turn(1, &[4]), &[1, 9]), Err(ThresholdUnmet)),
        ("to a revoked key", with(vec![revoked_key(4)]), rotate(&turn(1, &[4]), &[1, 9]), Err(Revoked)),
        ("to another's key", plain(), rotate(&turn(1, &[11]), &[1, 9]), Err(Conflict)),
        ("the next is skipped", plain(), rotate(&turn(2, &[4]), &[1, 9]), Err(InvalidMetadata)),
        ("shown again", turned(), rotate(&turn(1, &[5]), &[4, 8]), Err(Rollback)),
        ("the second", turned(), rotate(&turn(2, &[5]), &[4, 8]), Ok(())),
        ("the second, by keys of before", turned(), rotate(&turn(2, &[5]), &[1, 9]), Err(ThresholdUnmet)),
        ("of nobody", vec![], rotate(&turn(1, &[4]), &[1, 9]), Err(NotFound)),
        ("over", with(vec![Day(299)]), spoiled(|it| it.expires = later(START, 299)), Err(Expired)),
        ("after the trust is over", with(vec![Day(300)]), rotate(&turn(1, &[4]), &[1, 9]), Err(Expired)),
        ("not valid yet", plain(), spoiled(|it| it.issued = later(START, 1)), Err(NotYetValid)),
        ("for too long", plain(), spoiled(|it| it.expires = later(START, 401)), Err(InvalidMetadata)),
        ("a recovery key that signs", plain(), spoiled(|it| it.recovery = key(4)), Err(InvalidMetadata)),
        ("then the old key signs nothing", turned(), one().command(), Err(SignerUntrusted)),
        ("then the new key signs", turned(), one().with(|it| it.signers = vec![4]).command(), Ok(())),
        ("and what the old key signed stays", with(vec![Ask(one().command()), Ask(rotate(&turn(1, &[4]), &[1, 9]))]), one().command(), Ok(())),
    ];
    for (what, before, command, after) in cases {
        check(what, before, command, after);
    }
}

#[test]
fn an_index_and_a_clock_are_adopted_forward_only_and_hold_installs_to_them() {
    use Reason::{
        Expired, InvalidMetadata, NotYetValid, Overloaded, Revoked, Rollback, SignerUntrusted, ThresholdUnmet,
    };
    let listing = |version, seq, file: Digest| {
        let mut index = index(version, START);
        let newest = Newest {
            release_seq: seq,
            digest: file,
        };
        index.plugins.insert(tool(), newest);
        index.revoked.version = version;
        index
    };
    let (bare, file) = (index(1, START), two().plugin.digest);
    let listed = listing(5, 2, file);
    let of = |alter: fn(&mut skep_rules::metadata::Index)| {
        let mut index = index(5, START);
        alter(&mut index);
        adopt_index(&index, &[50])
    };
    let seen = |more: Vec<Step>| rooted([Ask(adopt_index(&listed, &[50]))].into_iter().chain(more).collect());
    let timed = |more: Vec<Step>| {
        let clock = Ask(adopt_clock(&clock(5, &listed, START), &[60]));
        seen([clock].into_iter().chain(more).collect())
    };
    let mut revoking = listing(6, 2, file);
    revoking.revoked.digests.insert(file);
    let many = |version: u64, count: usize| {
        let mut index = index(version, START);
        index.revoked.version = version;
        index.revoked.digests = (0..count).map(|n| Digest::of(&n.to_be_bytes())).collect();
        index
    };
    let stale = clock(6, &bare, START);
    // One case per line.
    #[rustfmt::skip]
    let cases: Vec<Case<'_>> = vec![
        ("an index", rooted(vec![]), adopt_index(&listed, &[50]), Ok(())),
        ("without a root", vec![], adopt_index(&bare, &[50]), Err(SignerUntrusted)),
        ("a clock without a root", vec![], adopt_clock(&clock(1, &bare, START), &[60]), Err(SignerUntrusted)),
        ("by the clock's key", rooted(vec![]), adopt_index(&bare, &[60]), Err(ThresholdUnmet)),
        ("a clock by the index's key", rooted(vec![]), adopt_clock(&clock(1, &bare, START), &[50]), Err(ThresholdUnmet)),
        ("by a revoked key", rooted(vec![revoked_key(50)]), adopt_index(&bare, &[50]), Err(ThresholdUnmet)),
        ("the same again", seen(vec![]), adopt_index(&listed, &[50]), Ok(())),
        ("an older index", seen(vec![]), adopt_index(&listing(4, 2, file), &[50]), Err(Rollback)),
        ("the same number, another index", seen(vec![]), adopt_index(&listing(5, 3, file), &[50]), Err(Rollback)),
        ("later, with an older release", seen(vec![]), adopt_index(&listing(6, 1, file), &[50]), Err(Rollback)),
        ("later, with another file", seen(vec![]), adopt_index(&listing(6, 2, Digest::of(b"x")), &[50]), Err(Rollback)),
        ("later, with a plugin less", seen(vec![]), of(|it| it.version = 6), Err(Rollback)),
        ("later, with older revocations", seen(vec![]), adopt_index(&{ let mut it = listing(6, 2, file); it.revoked.version = 4; it }, &[50]), Err(Rollback)),
        ("later, with the revocations left out", seen(vec![]), adopt_index(&{ let mut it = listing(6, 2, file); it.revoked.version = 0; it }, &[50]), Err(Rollback)),
        ("far ahead", seen(vec![]), adopt_index(&listing(u64::MAX, 2, file), &[50]), Ok(())),
        ("over", rooted(vec![Day(6)]), adopt_index(&bare, &[50]), Err(Expired)),
        ("over by the latest time seen", rooted(vec![Day(6), Ask(revoke(Revocation::Key(key(99).id()))), Day(0)]), adopt_index(&bare, &[50]), Err(Expired)),
        ("not valid yet", rooted(vec![]), of(|it| it.issued = later(START, 1)), Err(NotYetValid)),
        ("for too long", rooted(vec![]), of(|it| it.expires = later(START, 8)), Err(InvalidMetadata)),
        ("all the revocations that fit, again", rooted(vec![Ask(adopt_index(&many(1, MAX_REVOCATIONS), &[50]))]), adopt_index(&many(2, MAX_REVOCATIONS), &[50]), Ok(())),
        ("more than fit", rooted(vec![revoked_key(99)]), adopt_index(&many(1, MAX_REVOCATIONS), &[50]), Err(Overloaded)),
        ("one more than fits", rooted(vec![Ask(adopt_index(&many(1, MAX_REVOCATIONS), &[50]))]), revoke(Revocation::Key(key(99).id())), Err(Overloaded)),
        ("an older clock", timed(vec![]), adopt_clock(&clock(4, &listed, START), &[60]), Err(Rollback)),
        ("the same clock again", timed(vec![]), adopt_clock(&clock(5, &listed, START), &[60]), Ok(())),
        ("the same number, another clock", timed(vec![]), adopt_clock(&clock(5, &bare, START), &[60]), Err(Rollback)),
        ("a later clock", timed(vec![]), adopt_clock(&clock(6, &listed, START), &[60]), Ok(())),
        ("a clock that is over", rooted(vec![Day(1)]), adopt_clock(&clock(1, &bare, START), &[60]), Err(Expired)),
        ("a clock not valid yet", rooted(vec![]), adopt_clock(&clock(1, &bare, later(START, 1)), &[60]), Err(NotYetValid)),
        ("a clock for too long", rooted(vec![]), adopt_clock(&{ let mut it = clock(1, &bare, START); it.expires = later(START, 91); it }, &[60]), Err(InvalidMetadata)),
        ("what the index lists", timed(vec![]), two().command(), Ok(())),
        ("newer than the index lists", timed(vec![]), ship("acme/tool", 3, "").command(), Ok(())),
        ("what the index does not know", timed(vec![]), ship("acme/new", 1, "").command(), Ok(())),
        ("older than the index lists", timed(vec![]), one().command(), Err(Rollback)),
        ("older than the index lists, on purpose", timed(vec![]), one().with(|it| it.consent.downgrade = Some("x".into())).command(), Ok(())),
        ("another file than the index lists", timed(vec![]), two().holding(b"x").command(), Err(Rollback)),
        ("an index without its clock", seen(vec![]), two().command(), Err(Expired)),
        ("a clock of another index", timed(vec![Ask(adopt_clock(&stale, &[60]))]), two().command(), Err(Expired)),
        ("an index of another clock", timed(vec![Ask(adopt_index(&listing(6, 2, file), &[50]))]), two().command(), Err(Expired)),
        ("the clock is over", timed(vec![Day(1)]), two().command(), Err(Expired)),
        ("the index is over", timed(vec![Day(6)]), two().command(), Err(Expired)),
        ("the root is over", rooted(vec![Day(200)]), two().command(), Err(Expired)),
        ("revoked by the index", timed(vec![Ask(adopt_index(&revoking, &[50]))]), two().command(), Err(Revoked)),
    ];
    for (what, before, command, after) in cases {
        check(what, before, command, after);
    }
    assert_eq!(digest_of(&listed), digest_of(&listing(5, 2, file)));
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
