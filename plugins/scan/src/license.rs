//! Recognises licence files by their names and texts, and headers of files by their words.

use crate::spdx::{self, Terms};

/// The beginning of a file that is read: tags and headers stand there, and every known licence names itself there.
pub const HEAD: u64 = 64 << 10;

/// What a file's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It should hold a licence.
    License,
    /// It names authors and notices to keep.
    Notice,
}

/// Is it a licence file, by the last part of its path?
pub fn role(path: &str) -> Option<Role> {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_uppercase();
    let in_licenses = path.rsplit('/').nth(1).is_some_and(|directory| directory == "LICENSES");
    let stem_is = |word: &str| {
        name.strip_prefix(word).is_some_and(|rest| {
            let ends = rest.is_empty() || rest.starts_with(['.', '-', '_']);
            // `license.rs` is a program about licences.
            ends && crate::language::of_path(path).is_none_or(|language| !language.is_source)
        })
    };
    if stem_is("NOTICE") || stem_is("COPYRIGHT") {
        return Some(Role::Notice);
    }
    let is_license = [
        "LICENSE",
        "LICENCE",
        "LICENSES",
        "COPYING",
        "UNLICENSE",
        "COPYING.LESSER",
    ]
    .iter()
    .any(|word| stem_is(word));
    (is_license || in_licenses).then_some(Role::License)
}

/// A known text: every phrase must be there.
struct Fingerprint {
    id: &'static str,
    phrases: &'static [&'static str],
}

/// The most telling first: a text that quotes another licence holds its phrases too.
const FINGERPRINTS: &[Fingerprint] = &[
    Fingerprint {
        id: "AGPL-3.0",
        phrases: &["gnu affero general public license", "version 3"],
    },
    Fingerprint {
        id: "LGPL-3.0",
        phrases: &["gnu lesser general public license", "version 3"],
    },
    Fingerprint {
        id: "LGPL-2.1",
        phrases: &["gnu lesser general public license", "version 2.1"],
    },
    Fingerprint {
        id: "LGPL-2.0",
        phrases: &["gnu library general public license"],
    },
    Fingerprint {
        id: "GPL-3.0",
        phrases: &["gnu general public license", "version 3"],
    },
    Fingerprint {
        id: "GPL-2.0",
        phrases: &["gnu general public license", "version 2"],
    },
    Fingerprint {
        id: "MPL-2.0",
        phrases: &["mozilla public license", "2.0"],
    },
    Fingerprint {
        id: "EPL-2.0",
        phrases: &["eclipse public license", "2.0"],
    },
    Fingerprint {
        id: "Apache-2.0",
        phrases: &["apache license", "version 2.0"],
    },
    Fingerprint {
        id: "BSL-1.0",
        phrases: &["boost software license", "version 1.0"],
    },
    Fingerprint {
        id: "CC0-1.0",
        phrases: &["cc0 1.0 universal"],
    },
    Fingerprint {
        id: "Unlicense",
        phrases: &["this is free and unencumbered software released into the public domain"],
    },
    Fingerprint {
        id: "Unicode-3.0",
        phrases: &["unicode license v3"],
    },
    Fingerprint {
        id: "BSD-3-Clause",
        phrases: &[
            "redistribution and use in source and binary forms",
            "endorse or promote products",
        ],
    },
    Fingerprint {
        id: "BSD-2-Clause",
        phrases: &["redistribution and use in source and binary forms"],
    },
    Fingerprint {
        id: "Zlib",
        phrases: &[
            "this software is provided 'as-is', without any express or implied warranty",
            "altered source versions",
        ],
    },
    Fingerprint {
        id: "ISC",
        phrases: &[
            "permission to use, copy, modify, and/or distribute this software for any purpose",
            "provided that the above copyright notice and this permission notice appear",
        ],
    },
    Fingerprint {
        id: "0BSD",
        phrases: &["permission to use, copy, modify, and/or distribute this software for any purpose"],
    },
    Fingerprint {
        id: "MIT",
        phrases: &[
            "permission is hereby granted, free of charge, to any person obtaining a copy",
            "the above copyright notice",
        ],
    },
    Fingerprint {
        id: "MIT-0",
        phrases: &["permission is hereby granted, free of charge, to any person obtaining a copy"],
    },
];

/// Name a licence by its text; the position of its first phrase decides between several.
pub fn recognise(text: &[u8]) -> Option<&'static str> {
    let text = normalise(text);
    let found = |phrase: &&str| memchr::memmem::find(text.as_bytes(), phrase.as_bytes());
    FINGERPRINTS
        .iter()
        .filter(|fingerprint| fingerprint.phrases.iter().all(|phrase| found(phrase).is_some()))
        .min_by_key(|fingerprint| fingerprint.phrases.first().and_then(found))
        .map(|fingerprint| fingerprint.id)
}

/// The terms of a recognised licence.
pub fn terms(id: &str) -> Terms {
    spdx::terms(id).unwrap_or(Terms::Permissive)
}

/// Does the beginning of a file speak of its licence without a tag?
pub fn has_header(head: &[u8]) -> bool {
    let head = head.get(..4096).unwrap_or(head).to_ascii_lowercase();
    let holds = |word: &&str| memchr::memmem::find(&head, word.as_bytes()).is_some();
    let names = [
        "license",
        "licence",
        "redistribution and use",
        "permission is hereby granted",
        "public domain",
    ];
    let claims = [
        "copyright",
        "licensed under",
        "(c) ",
        "©",
        "public domain",
        "all rights reserved",
    ];
    [&names[..], &claims].iter().all(|words| words.iter().any(holds))
}

/// Lower case, one blank for every run of blanks and comment signs, plain quotes.
fn normalise(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).to_lowercase();
    let mut normal = String::with_capacity(text.len());
    for char in text.chars() {
        let char = match char {
            '‘' | '’' | '`' => '\'',
            '“' | '”' => '"',
            '*' | '#' | ';' | '>' => ' ',
            char if char.is_whitespace() => ' ',
            char => char,
        };
        if char != ' ' || !normal.ends_with(' ') {
            normal.push(char);
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_files_by_name() {
        let cases = [
            ("LICENSE", Some(Role::License)),
            ("a/b/license-mit.txt", Some(Role::License)),
            ("COPYING.LESSER", Some(Role::License)),
            ("LICENSES/MIT.txt", Some(Role::License)),
            ("Licence.md", Some(Role::License)),
            ("UNLICENSE", Some(Role::License)),
            ("NOTICE", Some(Role::Notice)),
            ("src/license.rs", None),
            ("licensed", None),
            ("licensing/a.txt", None),
        ];
        for (path, expected) in cases {
            assert_eq!(role(path), expected, "{path}");
        }
    }

    #[test]
    fn texts_are_recognised_through_wrapping_and_comment_signs() {
        let mit = "Permission is hereby granted, free of charge, to any\n person obtaining a copy of … The above copyright notice and this";
        let bsd = "Redistribution and use in source and binary\n# forms, with or without …";
        let cases = [
            (mit.to_owned(), Some("MIT")),
            (bsd.to_owned(), Some("BSD-2-Clause")),
            (
                format!("{bsd} used to endorse or\npromote products"),
                Some("BSD-3-Clause"),
            ),
            (
                "Apache License\n   Version 2.0, January 2004".to_owned(),
                Some("Apache-2.0"),
            ),
            (
                "GNU GENERAL PUBLIC LICENSE\nVersion 2, June 1991 … GNU Lesser General Public License … version 2.1"
                    .to_owned(),
                Some("GPL-2.0"),
            ),
            (
                "GNU AFFERO GENERAL PUBLIC LICENSE Version 3 … GNU General Public License".to_owned(),
                Some("AGPL-3.0"),
            ),
            (
                "GNU LESSER GENERAL PUBLIC LICENSE Version 3, 29 June … GNU General Public License".to_owned(),
                Some("LGPL-3.0"),
            ),
            ("Mozilla Public License Version 2.0".to_owned(), Some("MPL-2.0")),
            ("All rights are mine".to_owned(), None),
        ];
        for (text, expected) in cases {
            assert_eq!(recognise(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(recognise(include_bytes!("../../../LICENSE")), Some("Apache-2.0"));
        assert!(
            FINGERPRINTS
                .iter()
                .all(|fingerprint| spdx::terms(fingerprint.id).is_some())
        );
    }

    #[test]
    fn headers_by_their_words() {
        assert!(has_header(
            b"// Copyright 2024 Acme\n// Licensed under the\n// Apache License"
        ));
        assert!(!has_header(b"fn license() {}"));
        assert!(!has_header(b"// Copyright Acme"));
    }
}
