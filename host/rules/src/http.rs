//! What a plugin wants of HTTP: hosts, methods and paths, each parsed once into the one spelling that it has, so that two manifests which mean
//! the same compare equal and no spelling hides a difference. Nothing here resolves a name or speaks to anyone; https is meant throughout.

use std::{
    collections::BTreeSet,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    id::text_serde,
    limits::{MAX_HOST_BYTES, MAX_HTTP_PATH_BYTES},
};

/// The port of https: what is meant where none is named.
const HTTPS: u16 = 443;

/// Why a text is not a host or a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {why}")]
pub struct Error {
    text: String,
    what: &'static str,
    why: String,
}

/// One thing that a plugin wants of HTTP: these methods, at this host, beneath this path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpWant {
    /// Where.
    #[n(0)]
    pub host: Host,
    /// How; `GET` unless said.
    #[n(1)]
    #[serde(default)]
    pub methods: Methods,
    /// Beneath which path; `/`, which is everywhere, unless said.
    #[n(2)]
    #[serde(default)]
    pub path: PathPrefix,
}

impl fmt::Display for HttpWant {
    /// In words: `HTTP with api.example.com: GET beneath /v1/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "HTTP with {}: {} beneath {}",
            self.host.in_words(),
            self.methods,
            self.path
        )
    }
}

/// A host and its port: a name in lower-case ASCII (IDNA 2008, UTS 46) without a dot at its end, an IP address in its canonical form, or
/// `*.` and a name of two labels at least, which means every name below that one and not the name itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Host {
    /// Without the `*.`; IPv6 addresses in brackets.
    #[n(0)]
    name: String,
    #[n(1)]
    wildcard: bool,
    #[n(2)]
    port: u16,
}

impl Host {
    /// Whether it stands for every name below another.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// In words; a wildcard must not be overlooked.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self.wildcard {
            true => format!("every host in {self}"),
            false => self.to_string(),
        }
    }

    /// Whether all that the other stands for is in this one. Ports must be equal.
    #[must_use]
    pub fn covers(&self, other: &Host) -> bool {
        let below = |name: &str| {
            name.strip_suffix(self.name.as_str())
                .is_some_and(|rest| rest.ends_with('.'))
        };
        let named = match (self.wildcard, other.wildcard) {
            (false, false) => self.name == other.name,
            (false, true) => false,
            (true, false) => below(&other.name),
            (true, true) => self.name == other.name || below(&other.name),
        };
        named && self.port == other.port
    }

    /// Whether the two differ in their ports only.
    #[must_use]
    pub fn same_name(&self, other: &Host) -> bool {
        (&self.name, self.wildcard) == (&other.name, other.wildcard)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        write!(f, "{star}{}", self.name)?;
        match self.port {
            HTTPS => Ok(()),
            port => write!(f, ":{port}"),
        }
    }
}

impl FromStr for Host {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        parse_host(text).map_err(|why| Error {
            text: text.chars().take(80).collect(),
            what: "a host",
            why,
        })
    }
}

text_serde!(Host);

fn parse_host(text: &str) -> Result<Host, String> {
    // A character of a name takes at most four bytes; what is longer need not be looked at.
    if text.len() > 4 * MAX_HOST_BYTES {
        return Err(format!("it is longer than {MAX_HOST_BYTES} bytes"));
    }
    for (sign, why) in [
        ("://", "leave the scheme out; https is meant"),
        ("/", "the path has a key of its own, `path`"),
        ("@", "a host has no user"),
    ] {
        if text.contains(sign) {
            return Err(why.to_owned());
        }
    }
    let (name, port) = match text.rfind(':') {
        Some(colon) if !text.ends_with(']') => {
            let (name, port) = text.split_at(colon);
            (name, parse_port(port.trim_start_matches(':'))?)
        }
        _ => (text, HTTPS),
    };
    let (name, wildcard) = match name.strip_prefix("*.") {
        Some(rest) => (parse_name(rest)?, true),
        None if name == "*" => return Err("every host at once is not to be had; name the hosts".to_owned()),
        None if name.starts_with('[') => (parse_ipv6(name)?, false),
        None => (parse_name(name)?, false),
    };
    if wildcard && (!name.contains('.') || ends_in_number(&name)) {
        return Err("behind `*.` stands a name of two labels at least, such as `*.example.com`".to_owned());
    }
    Ok(Host { name, wildcard, port })
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|port| digits && *port != 0)
        .ok_or_else(|| "a port is a number between 1 and 65535".to_owned())
}

/// A name, or an IPv4 address, in its one spelling.
fn parse_name(text: &str) -> Result<String, String> {
    let ascii = Uts46::new()
        .to_ascii(
            text.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::VerifyAllowRootDot,
        )
        .map_err(|_| {
            "a name has labels of letters, digits and `-`, each 1 to 63 bytes long, together 253 at most; an IPv6 address stands in brackets"
                .to_owned()
        })?;
    let name = ascii.strip_suffix('.').unwrap_or(&ascii);
    // What ends in a number is an address to whoever resolves it, also as `127.1`, `0x7f000001` or `2130706433`: only the plain form is clear.
    if ends_in_number(name) && text.parse::<Ipv4Addr>().map(|address| address.to_string()).as_deref() != Ok(text) {
        return Err("an IPv4 address is written as four decimal numbers, such as `192.0.2.1`".to_owned());
    }
    Ok(name.to_owned())
}

fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    last.bytes().all(|byte| byte.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(hex)
}

fn parse_ipv6(text: &str) -> Result<String, String> {
    let address: Ipv6Addr = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .and_then(|address| address.parse().ok())
        .ok_or("an IPv6 address in brackets is expected, without a zone")?;
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Err(format!("write `{mapped}`"));
    }
    let canonical = format!("[{address}]");
    if text != canonical {
        return Err(format!("write `{canonical}`"));
    }
    Ok(canonical)
}

/// A method of HTTP. The set is closed: `CONNECT` and `TRACE` are tunnels and echoes, which no plugin needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Read.
    #[n(0)]
    Get,
    /// Read the header fields.
    #[n(1)]
    Head,
    /// Send.
    #[n(2)]
    Post,
    /// Replace.
    #[n(3)]
    Put,
    /// Change.
    #[n(4)]
    Patch,
    /// Remove.
    #[n(5)]
    Delete,
    /// Ask what is possible.
    #[n(6)]
    Options,
}

impl Method {
    /// All of them.
    pub const ALL: &[Method] = &[
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Put,
        Method::Patch,
        Method::Delete,
        Method::Options,
    ];
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        })
    }
}

/// One method at least.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(transparent)]
#[serde(try_from = "BTreeSet<Method>")]
pub struct Methods(#[n(0)] BTreeSet<Method>);

impl Methods {
    /// The methods, each once.
    pub fn iter(&self) -> impl Iterator<Item = Method> + '_ {
        self.0.iter().copied()
    }

    /// Whether a method is among them.
    #[must_use]
    pub fn contains(&self, method: Method) -> bool {
        self.0.contains(&method)
    }
}

impl Default for Methods {
    fn default() -> Self {
        Methods([Method::Get].into())
    }
}

impl TryFrom<BTreeSet<Method>> for Methods {
    type Error = &'static str;
    fn try_from(methods: BTreeSet<Method>) -> Result<Self, Self::Error> {
        match methods.is_empty() {
            true => Err("`methods` names one method at least; leave the key out for `GET`"),
            false => Ok(Methods(methods)),
        }
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<String> = self.iter().map(|method| method.to_string()).collect();
        f.write_str(&methods.join(", "))
    }
}

/// The beginning of a path, in whole segments: `/v1` means `/v1` and all beneath it, not `/v10`; `/v1/` means all beneath, without `/v1`
/// itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct PathPrefix(#[n(0)] String);

impl PathPrefix {
    /// Whether all that the other stands for is in this one.
    #[must_use]
    pub fn covers(&self, other: &PathPrefix) -> bool {
        let beneath = |rest: &str| rest.is_empty() || self.0.ends_with('/') || rest.starts_with('/');
        other.0.strip_prefix(self.0.as_str()).is_some_and(beneath)
    }
}

impl Default for PathPrefix {
    fn default() -> Self {
        PathPrefix("/".to_owned())
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PathPrefix {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        parse_path(text).map(PathPrefix).map_err(|why| Error {
            text: text.chars().take(80).collect(),
            what: "a path",
            why,
        })
    }
}

text_serde!(PathPrefix);

/// A path whose every byte has one spelling: an escape is taken only where the byte cannot stand for itself, its digits become upper case.
fn parse_path(text: &str) -> Result<String, String> {
    if text.len() > MAX_HTTP_PATH_BYTES {
        return Err(format!("it is longer than {MAX_HTTP_PATH_BYTES} bytes"));
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err("it begins with `/`".to_owned());
    };
    let segments: Vec<&str> = rest.split('/').collect();
    let (last, before) = segments.split_last().unwrap_or((&"", &[]));
    if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        return Err("`.` and `..` do not stand in it".to_owned());
    }
    if before.iter().any(|segment| segment.is_empty()) {
        return Err("it has no `//`".to_owned());
    }
    let before = before.iter().map(|segment| Ok(parse_segment(segment)? + "/"));
    let parts: Result<Vec<String>, String> = before.chain([parse_segment(last)]).collect();
    Ok(format!("/{}", parts?.concat()))
}

fn parse_segment(text: &str) -> Result<String, String> {
    // RFC 3986, `pchar`.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
    let mut segment = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first != '%' {
            if !u8::try_from(first).is_ok_and(plain) {
                return Err(format!(
                    "`{}` does not stand in it; letters outside ASCII and spaces are written with `%`",
                    first.escape_default()
                ));
            }
            segment.push(first);
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let byte = rest
            .get(1..3)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or("two hexadecimal digits follow a `%`")?;
        if byte.is_ascii_control() || plain(byte) || matches!(byte, b'/' | b'\\' | b'%') {
            return Err(format!(
                "`%{byte:02X}` does not stand in it: what it hides is written plainly or not at all"
            ));
        }
        segment.push_str(&format!("%{byte:02X}"));
        rest = rest.get(3..).unwrap_or_default();
    }
    Ok(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_spelling() {
        for (text, canonical) in [
            ("api.example.com", "api.example.com"),
            ("API.Example.COM.", "api.example.com"),
            ("api.example.com:443", "api.example.com"),
            ("api.example.com:0443", "api.example.com"),
            ("api.example.com.:8443", "api.example.com:8443"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER。example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("exam\u{ad}ple.com", "example.com"),
            ("*.Example.com:443", "*.example.com"),
            ("*.a.b.example.com:444", "*.a.b.example.com:444"),
            ("r3---sn-a.example.com", "r3---sn-a.example.com"),
            ("localhost", "localhost"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!(host.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse(), Ok(host), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_host_is_refused() {
        let long = "a.".repeat(127) + "com";
        let longer = "ü".repeat(1_000);
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "*",
            "*.",
            "*.com",
            "*.com.",
            "*.*.example.com",
            "a.*.com",
            "a*.example.com",
            "*.1.2.3.4",
            "*.0.2.1",
            "*.[::1]",
            "https://a.b",
            "a.b/",
            "a.b/v1",
            "u@a.b",
            "u:p@a.b",
            "a.b:",
            "a.b:0",
            "a.b:65536",
            "a.b:+443",
            "a.b:443:443",
            "a.b:４４３",
            "a b.c",
            "a_b.c",
            "-a.b",
            "a-.b",
            "a\0.b",
            "a%2eb",
            "a?b",
            "a#b",
            "a\\b",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7F.1",
            "0177.0.0.1",
            "127.0.0.01",
            "127.0.0.1.",
            "127.0.0.256",
            "１２７.0.0.1",
            "127。0。0。1",
            "1.2.3.4.5",
            "example.0x",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[::0:1]",
            "[2001:DB8::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[fe80::1%eth0]",
            "[::1]x",
            "[::1]:0",
            "[1.2.3.4]",
            "xn--a.example",
            "xn--ls8h=.la",
            "a\u{202e}b.com",
            "[::1].",
            long.as_str(),
            longer.as_str(),
        ] {
            assert!(
                text.parse::<Host>().is_err(),
                "{text} was taken: {:?}",
                text.parse::<Host>()
            );
        }
    }

    #[test]
    fn a_wildcard_covers_what_is_below() {
        let covers = |wide: &str, narrow: &str| wide.parse::<Host>().unwrap().covers(&narrow.parse().unwrap());
        for (wide, narrow) in [
            ("a.example.com", "A.example.com"),
            ("*.example.com", "a.example.com"),
            ("*.example.com", "b.a.example.com"),
            ("*.example.com", "*.example.com"),
            ("*.example.com", "*.a.example.com"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("*.example.com", "example.com"),
            ("*.example.com", "badexample.com"),
            ("*.example.com", "*.badexample.com"),
            ("*.example.com", "a.example.com:444"),
            ("*.a.example.com", "*.example.com"),
            ("a.example.com", "*.example.com"),
            ("a.example.com", "*.a.example.com"),
            ("example.com", "a.example.com"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

    #[test]
    fn a_path_has_one_spelling() {
        for (text, canonical) in [
            ("/", "/"),
            ("/v1", "/v1"),
            ("/v1/", "/v1/"),
            ("/a%20b/%c3%bc", "/a%20b/%C3%BC"),
            ("/a;b=c:d@e/...", "/a;b=c:d@e/..."),
        ] {
            let path: PathPrefix = text.parse().unwrap();
            assert_eq!(path.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(path));
        }
        for text in [
            "",
            "v1",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e",
            "/%2E%2e/",
            "/a%2fb",
            "/a%5Cb",
            "/a\\b",
            "/%252e",
            "/%25",
            "/%61",
            "/%2D",
            "/%7E",
            "/%00",
            "/%7f",
            "/%",
            "/%4",
            "/%+4",
            "/%zz",
            "/%é",
            "/a?b",
            "/a#b",
            "/a b",
            "/ü",
            "/a\n",
            "/\u{202e}",
            "*",
            "/[",
            "/a%3Bb",
            "/a|b",
        ] {
            assert!(text.parse::<PathPrefix>().is_err(), "{text} was taken");
        }
        assert!(
            format!("/{}", "a".repeat(MAX_HTTP_PATH_BYTES))
                .parse::<PathPrefix>()
                .is_err()
        );
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        let covers = |wide: &str, narrow: &str| wide.parse::<PathPrefix>().unwrap().covers(&narrow.parse().unwrap());
        for (wide, narrow) in [
            ("/", "/v1"),
            ("/v1", "/v1"),
            ("/v1", "/v1/"),
            ("/v1", "/v1/a"),
            ("/v1/", "/v1/a"),
            ("/v1/", "/v1/"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("/v1", "/v10"),
            ("/v1/", "/v1"),
            ("/v1", "/"),
            ("/v1/", "/v2/"),
            ("/v1", "/V1"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

    #[test]
    fn methods_default_to_reading_and_are_never_none() {
        let want: HttpWant = toml::from_str("host = 'a.b'").unwrap();
        assert_eq!(
            (want.methods.to_string(), want.path.to_string()),
            ("GET".to_owned(), "/".to_owned())
        );
        for bad in ["[]", "['get']", "['TRACE']", "['CONNECT']", "['*']", "'GET'"] {
            assert!(
                toml::from_str::<HttpWant>(&format!("host = 'a.b'\nmethods = {bad}")).is_err(),
                "{bad}"
            );
        }
        for method in Method::ALL {
            let want: HttpWant = toml::from_str(&format!("host = 'a.b'\nmethods = ['{method}', '{method}']")).unwrap();
            assert!(want.methods.contains(*method) && want.methods.iter().count() == 1);
        }
    }
}
