//! The documents of trust: what the operator says, roots, rotations, indexes and clocks, each adopted or refused by every rule there is.

use skep_rules::{
    id::Digest,
    limits::MAX_REVOCATIONS,
    metadata::{Newest, Publisher, Root},
    quantity::Time,
    reason::Reason,
    trust::Revocation,
};

use crate::{
    fixtures::{
        START, adopt_clock, adopt_index, adopt_root, clock, digest_of, ids, index, key, keys, later, revoke, root,
        rotate, rotation, ship, trust,
    },
    trust::{
        Case,
        Step::{self, Ask, Day},
        acme, bolt, check, one, revoked_key, tool, trusting, two,
    },
};

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

pub(crate) fn rooted(more: Vec<Step>) -> Vec<Step> {
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
    let renewed = || {
        rooted(vec![
            Ask(rotate(&turn(1, &[4]), &[1, 9])),
            Ask(adopt_root(&next(|_| {}), &[40])),
        ])
    };
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
        ("to fewer signatures", trusting(|it| it.release.threshold = 2), rotate(&turn(1, &[4]), &[1, 2, 9]), Err(InvalidMetadata)),
        ("the next root does not bring the old key back", renewed(), one().command(), Err(SignerUntrusted)),
        ("nor take the new one away", renewed(), one().with(|it| it.signers = vec![4]).command(), Ok(())),
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
        Conflict, Expired, InvalidMetadata, NotYetValid, Overloaded, Revoked, Rollback, SignerUntrusted, ThresholdUnmet,
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
        ("one more than fits, by hand", rooted(vec![Ask(adopt_index(&many(1, MAX_REVOCATIONS), &[50]))]), revoke(Revocation::Key(key(99).id())), Ok(())),
        ("the last key of the root", rooted(vec![]), revoke(Revocation::Key(key(40).id())), Err(Conflict)),
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
