//! Reads `SPDX-License-Identifier` tags: the shape of the expression, and whether its ids are known.

/// What opens a tag.
pub const TAG: &str = "SPDX-License-Identifier:";

/// The longest expression that is read; longer ones are not written by people.
const MAX_EXPRESSION: usize = 256;

/// What a license asks of those who pass the work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Terms {
    /// Keep the notice.
    Permissive,
    /// Pass the source of the work on under the same terms.
    Copyleft,
}

/// What a tag says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A well-formed expression of known ids. The terms are those that bind after the choices (`OR`) the expression leaves.
    Known(Terms),
    /// A well-formed expression with an id that is not in the table.
    Unknown(String),
    /// No expression.
    Malformed,
}

const PERMISSIVE: &[&str] = &[
    "0BSD",
    "AFL-2.0",
    "AFL-2.1",
    "AFL-3.0",
    "Apache-1.0",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-1.0",
    "Artistic-1.0-Perl",
    "Artistic-2.0",
    "BlueOak-1.0.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-2-Clause-Patent",
    "BSD-2-Clause-Views",
    "BSD-3-Clause",
    "BSD-3-Clause-Clear",
    "BSD-3-Clause-LBNL",
    "BSD-4-Clause",
    "BSD-4-Clause-UC",
    "BSD-Source-Code",
    "BSL-1.0",
    "BUSL-1.1",
    "bzip2-1.0.6",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-NC-4.0",
    "CC-PDDC",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "curl",
    "ECL-2.0",
    "Elastic-2.0",
    "FSFAP",
    "FTL",
    "GFDL-1.2-or-later",
    "GFDL-1.3-only",
    "GFDL-1.3-or-later",
    "HPND",
    "HPND-sell-variant",
    "ICU",
    "IJG",
    "ISC",
    "JSON",
    "libpng-2.0",
    "Libpng",
    "libtiff",
    "Linux-OpenIB",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MIT-Modern-Variant",
    "MITNFA",
    "MS-PL",
    "MulanPSL-2.0",
    "NCSA",
    "NIST-PD",
    "NTP",
    "OFL-1.1",
    "OLDAP-2.8",
    "OpenSSL",
    "PHP-3.01",
    "PostgreSQL",
    "PSF-2.0",
    "Python-2.0",
    "Python-2.0.1",
    "Ruby",
    "SGI-B-2.0",
    "SSH-OpenSSH",
    "TCL",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "UPL-1.0",
    "Vim",
    "W3C",
    "WTFPL",
    "X11",
    "Xnet",
    "Zend-2.0",
    "Zlib",
    "ZPL-2.1",
    "zlib-acknowledgement",
];

const COPYLEFT: &[&str] = &[
    "AGPL-1.0-only",
    "AGPL-3.0",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "APSL-2.0",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "CDDL-1.0",
    "CDDL-1.1",
    "CECILL-2.1",
    "CPAL-1.0",
    "CPL-1.0",
    "EPL-1.0",
    "EPL-2.0",
    "EUPL-1.1",
    "EUPL-1.2",
    "GPL-1.0-only",
    "GPL-1.0-or-later",
    "GPL-2.0",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "IPL-1.0",
    "LGPL-2.0",
    "LGPL-2.0-only",
    "LGPL-2.0-or-later",
    "LGPL-2.1",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "MPL-1.0",
    "MPL-1.1",
    "MPL-2.0",
    "MPL-2.0-no-copyleft-exception",
    "MS-RL",
    "ODbL-1.0",
    "OSL-3.0",
    "QPL-1.0",
    "RPL-1.5",
    "Sleepycat",
    "SPL-1.0",
    "SSPL-1.0",
];

const EXCEPTIONS: &[&str] = &[
    "Autoconf-exception-2.0",
    "Autoconf-exception-3.0",
    "Autoconf-exception-generic",
    "Bison-exception-2.2",
    "Bootloader-exception",
    "Classpath-exception-2.0",
    "CLISP-exception-2.0",
    "Font-exception-2.0",
    "FLTK-exception",
    "GCC-exception-2.0",
    "GCC-exception-3.1",
    "GPL-3.0-linking-exception",
    "Libtool-exception",
    "Linux-syscall-note",
    "LLGPL",
    "LLVM-exception",
    "OCaml-LGPL-linking-exception",
    "OpenJDK-assembly-exception-1.0",
    "Qt-GPL-exception-1.0",
    "Qt-LGPL-exception-1.1",
    "Swift-exception",
    "u-boot-exception-2.0",
    "Universal-FOSS-exception-1.0",
    "WxWindows-exception-3.1",
];

/// The terms of a license, if it is known. Ids differ in case in the wild and mean the same.
pub fn terms(id: &str) -> Option<Terms> {
    let id = id.strip_suffix('+').unwrap_or(id);
    let is = |known: &&str| known.eq_ignore_ascii_case(id);
    if COPYLEFT.iter().any(is) {
        return Some(Terms::Copyleft);
    }
    // A reference to a text that travels with the work: known to its author, and to nobody else.
    let is_reference = id.starts_with("LicenseRef-") || id.starts_with("DocumentRef-");
    (is_reference || PERMISSIVE.iter().any(is)).then_some(Terms::Permissive)
}

/// The expression behind a tag, without what closes the comment around it.
pub fn expression(after_tag: &[u8]) -> String {
    let line = after_tag
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .next()
        .unwrap_or_default();
    let line = line.get(..MAX_EXPRESSION).unwrap_or(line);
    let allowed = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'\t' | b'.' | b'-' | b'+' | b'(' | b')' | b':' | b'_')
    };
    let length = line.iter().take_while(|byte| allowed(byte)).count();
    let text = String::from_utf8_lossy(line.get(..length).unwrap_or_default());
    let text = text.trim();
    // `--` of `-->`, `:` of prose.
    let text = text.trim_end_matches(['-', ':', '.', '_']).trim_end();
    let unmatched = text.ends_with(')') && text.matches(')').count() > text.matches('(').count();
    text.strip_suffix(')')
        .filter(|_| unmatched)
        .unwrap_or(text)
        .trim_end()
        .to_owned()
}

/// Judge an expression.
pub fn judge(expression: &str) -> Tag {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        unknown: None,
        depth: 0,
    };
    match parser.any_of() {
        Some(terms) if parser.words.is_empty() => parser.unknown.map_or(Tag::Known(terms), Tag::Unknown),
        _ => Tag::Malformed,
    }
}

/// `any-of = all-of *("OR" all-of)`, `all-of = term *("AND" term)`, `term = "(" any-of ")" / id ["WITH" exception]`
struct Parser<'a> {
    words: &'a [&'a str],
    unknown: Option<String>,
    /// Open parentheses: an expression of parentheses alone must not exhaust the stack.
    depth: u8,
}

impl<'a> Parser<'a> {
    fn any_of(&mut self) -> Option<Terms> {
        let mut terms = self.all_of()?;
        while self.take("OR") {
            terms = terms.min(self.all_of()?);
        }
        Some(terms)
    }

    fn all_of(&mut self) -> Option<Terms> {
        let mut terms = self.term()?;
        while self.take("AND") {
            terms = terms.max(self.term()?);
        }
        Some(terms)
    }

    fn term(&mut self) -> Option<Terms> {
        if self.take("(") {
            self.depth += 1;
            let terms = (self.depth <= 16).then(|| self.any_of())??;
            self.depth -= 1;
            return self.take(")").then_some(terms);
        }
        let id = self.id()?;
        let terms = terms(id);
        if terms.is_none() {
            self.unknown.get_or_insert_with(|| id.to_owned());
        }
        if self.take("WITH") {
            let exception = self.id()?;
            if !EXCEPTIONS.iter().any(|known| known.eq_ignore_ascii_case(exception)) {
                self.unknown.get_or_insert_with(|| exception.to_owned());
            }
        }
        Some(terms.unwrap_or(Terms::Permissive))
    }

    fn take(&mut self, word: &str) -> bool {
        match self.words {
            [first, rest @ ..] if first.eq_ignore_ascii_case(word) => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }

    fn id(&mut self) -> Option<&'a str> {
        let words: &'a [&'a str] = self.words;
        let [first, rest @ ..] = words else { return None };
        let is_operator = ["OR", "AND", "WITH"]
            .iter()
            .any(|operator| operator.eq_ignore_ascii_case(first));
        let is_id = first.starts_with(|char: char| char.is_ascii_alphanumeric());
        if is_operator || !is_id {
            return None;
        }
        self.words = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_judged() {
        let permissive = Tag::Known(Terms::Permissive);
        let copyleft = Tag::Known(Terms::Copyleft);
        let unknown = |id: &str| Tag::Unknown(id.to_owned());
        let cases = [
            ("MIT", permissive.clone()),
            ("mit OR apache-2.0", permissive.clone()),
            ("Apache-2.0 WITH LLVM-exception", permissive.clone()),
            ("GPL-2.0-only WITH Classpath-exception-2.0", copyleft.clone()),
            ("GPL-2.0+", copyleft.clone()),
            ("GPL-3.0-only OR MIT", permissive.clone()),
            ("(MIT AND (GPL-2.0-or-later OR LGPL-3.0-only))", copyleft.clone()),
            ("LicenseRef-Acme", permissive.clone()),
            ("Proprietary", unknown("Proprietary")),
            ("MIT AND Foo-1.0", unknown("Foo-1.0")),
            ("Apache-2.0 WITH Nothing-exception", unknown("Nothing-exception")),
            ("MIT OR", Tag::Malformed),
            ("MIT Apache-2.0", Tag::Malformed),
            ("(MIT", Tag::Malformed),
            ("", Tag::Malformed),
            ("OR", Tag::Malformed),
        ];
        for (text, expected) in cases {
            assert_eq!(judge(text), expected, "{text}");
        }
        assert_eq!(judge(&"(".repeat(10_000)), Tag::Malformed);
    }

    #[test]
    fn expressions_end_where_the_comment_does() {
        let cases = [
            (" MIT\nnext", "MIT"),
            (" MIT */", "MIT"),
            (" (MIT OR ISC) -->", "(MIT OR ISC)"),
            (" MIT)", "MIT"),
            (" GPL-2.0+ \r\n", "GPL-2.0+"),
            (" MIT\"", "MIT"),
            ("", ""),
            (" {license}", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(expression(text.as_bytes()), expected, "{text}");
        }
    }
}
