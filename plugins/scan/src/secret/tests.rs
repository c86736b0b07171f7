use super::*;
use proptest::prelude::*;

fn rules(text: &str, path: &str) -> Vec<(&'static str, String)> {
    let secrets = Secrets::new();
    let found = secrets.find(text.as_bytes(), 0..text.len(), Place::of(path));
    found
        .into_iter()
        .map(|found| (found.rule, text[found.secret].to_owned()))
        .collect()
}

fn check(path: &str, text: &str, expected: &[(&str, &str)]) {
    let found = rules(text, path);
    let found: Vec<_> = found.iter().map(|(rule, secret)| (*rule, secret.as_str())).collect();
    assert_eq!(found, expected, "{path}: {text}");
}

/// A made-up body of a token: no real one, and not the same character twice in a row.
fn body(alphabet: &str, length: usize) -> String {
    let letters: Vec<char> = alphabet.chars().collect();
    (0..length)
        .map(|at| letters[(at * 7 + at / 3) % letters.len()])
        .collect()
}

const ALNUM: &str = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7";

#[test]
fn every_token_is_found_with_its_boundaries() {
    for token in TOKENS {
        let alphabet = match token.body {
            Alphabet::UpperDigits => "AB3DE6GH9JK2MN5PQ8ST1VW4YZ7",
            Alphabet::Hex => "0a1b2c3d4e5f6789",
            _ => ALNUM,
        };
        let text = format!("{}{}", token.prefix, body(alphabet, token.min));
        for (before, after) in [("", ""), ("x = \"", "\";"), ("(", ")"), ("https://", " ")] {
            let line = format!("{before}{text}{after}");
            let found = rules(&line, "a.rs");
            assert!(found.iter().any(|(rule, _)| *rule == token.rule), "{line}: {found:?}");
        }
        if token.body != Alphabet::Path {
            assert_eq!(rules(&format!("x{text}"), "a.rs"), [], "inside a word: {text}");
        }
        let short = &text[..text.len() - 1];
        assert_eq!(rules(short, "a.rs"), [], "too short: {short}");
        let same = format!("{}{}", token.prefix, "A1".repeat(token.min));
        assert_eq!(rules(&same[..text.len()], "a.rs"), [], "no entropy: {same}");
    }
}

#[test]
fn private_keys() {
    let line = body(ALNUM, 64);
    let key = |label: &str| format!("-----BEGIN {label}-----\n{line}\n{line}\n-----END {label}-----\n");
    for (label, rule) in [
        ("RSA PRIVATE KEY", "private-key"),
        ("EC PRIVATE KEY", "private-key"),
        ("PRIVATE KEY", "private-key"),
        ("ENCRYPTED PRIVATE KEY", "encrypted-private-key"),
        ("OPENSSH PRIVATE KEY", "ssh-private-key"),
        ("PGP PRIVATE KEY BLOCK", "pgp-private-key"),
    ] {
        check("id", &key(label), &[(rule, "")]);
        check(
            "id.rs",
            &format!("const K: &str = \"{}\";", key(label).replace('\n', "\\n")),
            &[(rule, &key(label).replace('\n', "\\n")[label.len() + 16..][..134])],
        );
    }
    check("id", &key("PUBLIC KEY"), &[]);
    check("id", &key("CERTIFICATE"), &[]);
    check(
        "a.rs",
        "if text.starts_with(\"-----BEGIN PRIVATE KEY-----\") {\n    let other = thing.of_no_interest_whatsoever();\n",
        &[],
    );
    check("a.md", "It begins with -----BEGIN PRIVATE KEY----- and so on.", &[]);
    check(
        "a.py",
        &format!("k = \"-----BEGIN EC PRIVATE KEY-----\" + \\\n{line}\n"),
        &[("private-key", "\" + \\")],
    );
}

#[test]
fn assignments() {
    let aws = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYzEXAMPLEKE";
    let random = body(ALNUM, 24);
    let assignment = |secret| vec![("high-entropy-assignment", secret)];
    type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>);
    let cases: &[Case<'_>] = &[
        ("a.py", "password = \"hunter2\"", assignment("hunter2")),
        ("a.py", "DB_PASSWORD = 'tr0ub4dor&3'", assignment("tr0ub4dor&3")),
        (
            "a.rs",
            &format!("const API_KEY: &'static str = \"{random}\";"),
            assignment(&random),
        ),
        (
            "a.ts",
            &format!("const token: string = '{random}'"),
            assignment(&random),
        ),
        (
            "a.json",
            &format!("{{\"client_secret\": \"{random}\"}}"),
            assignment(&random),
        ),
        (
            "a.json",
            &format!("\"{{\\\"api-key\\\": \\\"{random}\\\"}}\""),
            assignment(&random),
        ),
        ("a.go", &format!("apiKey := \"{random}\""), assignment(&random)),
        ("a.rb", &format!(":secret_key_base => '{random}'"), assignment(&random)),
        ("a.xml", "<password>s3cr-Pt7wq</password>", assignment("s3cr-Pt7wq")),
        (".env", &format!("AUTH_TOKEN={random}"), assignment(&random)),
        ("a.yml", "password: s3cr-Pt7wq # rotate", assignment("s3cr-Pt7wq")),
        (
            ".env",
            &format!("AWS_SECRET_ACCESS_KEY={aws}"),
            vec![("aws-secret-key", aws)],
        ),
        (
            "a.tf",
            &format!("secret_access_key = \"{aws}\""),
            vec![("aws-secret-key", aws)],
        ),
        ("a.py", "proxy = \"socks5h://<user>:<password>@proxy-7:1080\"", vec![]),
        ("a.rs", "let password = read_password(2);", vec![]),
        ("a.rs", "let token = Token::Ident1;", vec![]),
        ("a.py", "password = os.environ['PASSWORD1']", vec![]),
        ("a.py", "password = \"${DB_PASSWORD_1}\"", vec![]),
        ("a.py", "password = \"changeme1\"", vec![]),
        ("a.py", "password = \"password123\"", vec![]),
        ("a.py", "token_type = \"aB3dE6gH9jK2mN5pQ8sT\"", vec![]),
        ("a.py", "secret = \"correct horse battery 5taple\"", vec![]),
        ("a.js", "token: 'http://x.y/a1b2c3d4e5f6g7h8'", vec![]),
        ("a.js", "passwordField.type = 'text12'", vec![]),
        ("a.js", "label: 'Your password: ', x: 'abc123'", vec![]),
        ("Cargo.lock", "token = \"aB3dE6gH9jK2mN5pQ8sT1vW4\"", vec![]),
        ("a.yml", "secret: my-secret-name-2", vec![]),
        ("a.c", "#define TOKEN_STRING 12", vec![]),
    ];
    for (path, text, expected) in cases {
        check(path, text, expected);
    }
}

#[test]
fn urls_web_tokens_and_hooks() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        (
            "postgres://app:s3cr3t@db.acme.dev:5432/x",
            &[("url-password", "s3cr3t")],
        ),
        ("redis://:p4ssw0rd9@cache.acme.dev", &[("url-password", "p4ssw0rd9")]),
        ("https://u:a@b1@acme.dev/", &[("url-password", "a@b1")]),
        ("https://user:password@acme.dev", &[]),
        ("https://user:${PASS}@acme.dev", &[]),
        ("https://user:s3cr3t@example.com/", &[]),
        ("http://[::1]:80/@x", &[]),
        ("https://acme.dev/a:b@c", &[]),
        ("mailto://a@b", &[]),
    ];
    for (text, expected) in cases {
        check("a.txt", text, expected);
    }
    let token = format!("eyJ{}.eyJ{}.{}", body(ALNUM, 20), body(ALNUM, 30), body(ALNUM, 43));
    check("a.txt", &format!("Bearer {token}"), &[("json-web-token", &token)]);
    check("a.txt", "eyJhbGciOiJIUzI1NiJ9 alone", &[]);
}

#[test]
fn the_known_kind_wins_over_the_keyword() {
    let token = format!("ghp_{}", body(ALNUM, 36));
    check("a.py", &format!("token = \"{token}\""), &[("github-token", &token)]);
}

#[test]
fn excerpts_hide_every_secret_of_the_line() {
    let secrets = Secrets::new();
    let token = format!("ghp_{}", body(ALNUM, 36));
    let cases = [
        (
            format!("a = \"{token}\" # was {token}"),
            "a = \"ghp_…****\" # was ghp_…****",
        ),
        (
            "password = \"hunter2\"; // hunter2 is bad".to_owned(),
            "password = \"****\"; // **** is bad",
        ),
        ("url = 'https://u:hunter2@h/x'".to_owned(), "url = 'https://u:****@h/x'"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\\nMIIEabc\\n-----END RSA PRIVATE KEY-----".to_owned(),
            "-----BEGIN RSA PRIVATE KEY-----****-----END RSA PRIVATE KEY-----",
        ),
        ("key AKIAIOSFODNN7EXAMPLE in prose".to_owned(), "key AKIA…**** in prose"),
        ("nothing to hide".to_owned(), "nothing to hide"),
    ];
    for (line, expected) in cases {
        assert_eq!(secrets.excerpt(line.as_bytes(), 0), expected);
    }
}

/// A secret of each kind: the text that stands in a line, and the part of it that is secret beyond the first characters.
fn secret() -> impl Strategy<Value = (String, String)> {
    let token = (0..TOKENS.len()).prop_flat_map(|index| {
        let token = &TOKENS[index];
        let class = match token.body {
            Alphabet::UpperDigits => "[A-Z0-9]",
            Alphabet::Hex => "[0-9a-f]",
            Alphabet::Letters => "[A-Za-z0-9]",
            Alphabet::Url => "[A-Za-z0-9_-]",
            Alphabet::Base64 => "[A-Za-z0-9+/]",
            Alphabet::Path => "[A-Za-z0-9/]",
        };
        let longest = token.max.min(token.min + 20);
        proptest::string::string_regex(&format!("{class}{{{},{longest}}}", token.min))
            .unwrap()
            .prop_map(|body| (format!("{}{body}", token.prefix), body))
    });
    let quoted = (
        "(DB_)?(password|api_key|client-secret|accessToken)(\"?: ?| = | := |=)",
        "[!-~&&[^\"\\\\]]{6,40}",
    )
        .prop_map(|(key, value)| (format!("{key}\"{value}\""), value));
    let url = ("[a-z]{2,8}", "[a-z]{0,6}", "[A-Za-z0-9!$&_.=+~*-]{5,30}")
        .prop_map(|(scheme, user, value)| (format!("{scheme}://{user}:{value}@db.acme.dev/x"), value));
    let web = (
        "eyJ[A-Za-z0-9_-]{12,40}",
        "eyJ[A-Za-z0-9_-]{12,40}",
        "[A-Za-z0-9_-]{20,60}",
    )
        .prop_map(|(header, payload, signature)| {
            (
                format!("{header}.{payload}.{signature}"),
                format!("{header}.{payload}.{signature}")[3..].to_owned(),
            )
        });
    let key = "(RSA |EC |OPENSSH |ENCRYPTED )?".prop_flat_map(|label| {
        "[A-Za-z0-9+/]{40,80}".prop_map(move |value| {
            (
                format!("-----BEGIN {label}PRIVATE KEY-----\\n{value}\\n-----END {label}PRIVATE KEY-----"),
                value,
            )
        })
    });
    prop_oneof![5 => token, 2 => quoted, 1 => url, 1 => web, 1 => key]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_excerpt_shows_more_than_four_characters_of_a_secret(
        secrets in proptest::collection::vec((secret(), "( |, |; | // TODO |\t|\\) \\(| # XXX: )"), 1..4),
        lead in "[ a-z(]{0,70} ",
        at in 0_usize..400,
    ) {
        let mut line = lead;
        for ((text, _), glue) in &secrets {
            line.push_str(text);
            line.push_str(glue);
        }
        let rules = Secrets::new();
        let at = at % line.len();
        for excerpt in [rules.excerpt(line.as_bytes(), at), rules.excerpt_from(line.as_bytes(), at), rules.excerpt(line.as_bytes(), 0)] {
            prop_assert!(excerpt.chars().count() <= excerpt::MAX_CHARS);
            for ((text, value), _) in &secrets {
                // Five characters of a value that also stand in the harmless part of the line say nothing about the value.
                let harmless = line.replace(value.as_str(), "\0");
                for start in 0..value.len().saturating_sub(SHOWN) {
                    let piece = &value[start..=start + SHOWN];
                    prop_assert!(!excerpt.contains(piece) || harmless.contains(piece), "{piece:?} of {text:?} in {excerpt:?}");
                }
            }
        }
    }

    #[test]
    fn whatever_is_found_is_masked(bytes in "([ -~]|token|secret|password|://|ghp_|AKIA|eyJ|=|\"|:|@|-----BEGIN |PRIVATE KEY-----|[A-Za-z0-9]{16,40}){0,24}") {
        let rules = Secrets::new();
        let text = bytes.as_bytes();
        let masks = rules.masks(text);
        for place in [Place::default(), Place { unquoted: true, hashes: false }] {
            for found in rules.find(text, 0..text.len(), place) {
                let hidden = masks.iter().any(|mask| mask.hidden.start <= found.secret.start && found.secret.end <= mask.hidden.end);
                prop_assert!(hidden || found.secret.is_empty(), "{found:?} {masks:?}");
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..400) {
        let rules = Secrets::new();
        let excerpt = rules.excerpt(&bytes, at);
        prop_assert!(excerpt.chars().count() <= excerpt::MAX_CHARS && !excerpt.contains(char::is_control));
        rules.find(&bytes, 0..bytes.len(), Place::default());
    }
}
