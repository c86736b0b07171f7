//! The tokens that are known by their shape: a prefix, an alphabet, a length. Adding one is adding a line.

/// The bytes that the body of a token is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// `A-Z 0-9`
    UpperDigits,
    /// `0-9 a-f`
    Hex,
    /// `A-Z a-z 0-9`
    Letters,
    /// Letters, `-` and `_`.
    Url,
    /// Letters, `+`, `/` and `=`.
    Base64,
    /// What stands in a path: `Url` and `/`, `.`.
    Path,
}

impl Alphabet {
    /// Is a byte one of it?
    pub fn holds(self, byte: u8) -> bool {
        match self {
            Self::UpperDigits => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Hex => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            Self::Letters => byte.is_ascii_alphanumeric(),
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Self::Base64 => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='),
            Self::Path => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/' | b'.'),
        }
    }
}

/// One kind of token.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// The rule, as findings name it.
    pub rule: &'static str,
    /// What the token begins with, exactly.
    pub prefix: &'static str,
    /// What follows the prefix.
    pub body: Alphabet,
    /// The least bytes that follow the prefix.
    pub min: usize,
    /// The most bytes that follow it; a longer run is something else.
    pub max: usize,
}

const fn token(rule: &'static str, prefix: &'static str, body: Alphabet, min: usize, max: usize) -> Token {
    Token {
        rule,
        prefix,
        body,
        min,
        max,
    }
}

/// Every kind of token.
pub const TOKENS: &[Token] = &[
    token("aws-access-key", "AKIA", Alphabet::UpperDigits, 16, 16),
    token("aws-access-key", "ASIA", Alphabet::UpperDigits, 16, 16),
    token("aws-access-key", "ABIA", Alphabet::UpperDigits, 16, 16),
    token("aws-access-key", "ACCA", Alphabet::UpperDigits, 16, 16),
    token("github-token", "ghp_", Alphabet::Letters, 36, 255),
    token("github-token", "gho_", Alphabet::Letters, 36, 255),
    token("github-token", "ghu_", Alphabet::Letters, 36, 255),
    token("github-token", "ghs_", Alphabet::Letters, 36, 255),
    token("github-token", "ghr_", Alphabet::Letters, 36, 255),
    token("github-fine-grained-token", "github_pat_", Alphabet::Url, 40, 255),
    token("gitlab-token", "glpat-", Alphabet::Url, 20, 255),
    token("gitlab-token", "gldt-", Alphabet::Url, 20, 255),
    token("gitlab-token", "glrt-", Alphabet::Url, 20, 255),
    token("gitlab-token", "glptt-", Alphabet::Url, 40, 255),
    token("slack-token", "xoxa-", Alphabet::Url, 10, 255),
    token("slack-token", "xoxb-", Alphabet::Url, 10, 255),
    token("slack-token", "xoxp-", Alphabet::Url, 10, 255),
    token("slack-token", "xoxr-", Alphabet::Url, 10, 255),
    token("slack-token", "xoxs-", Alphabet::Url, 10, 255),
    token("slack-token", "xapp-", Alphabet::Url, 20, 255),
    token("slack-webhook", "hooks.slack.com/services/", Alphabet::Path, 20, 255),
    token("slack-webhook", "hooks.slack.com/workflows/", Alphabet::Path, 20, 255),
    token("stripe-key", "sk_live_", Alphabet::Letters, 16, 255),
    token("stripe-key", "rk_live_", Alphabet::Letters, 16, 255),
    token("stripe-test-key", "sk_test_", Alphabet::Letters, 16, 255),
    token("stripe-test-key", "rk_test_", Alphabet::Letters, 16, 255),
    token("stripe-webhook-secret", "whsec_", Alphabet::Base64, 24, 255),
    token("google-api-key", "AIza", Alphabet::Url, 35, 35),
    token("google-oauth-secret", "GOCSPX-", Alphabet::Url, 28, 28),
    token("npm-token", "npm_", Alphabet::Letters, 36, 36),
    token("pypi-token", "pypi-AgE", Alphabet::Url, 50, 1024),
    token("crates-io-token", "cio", Alphabet::Letters, 32, 32),
    token("rubygems-key", "rubygems_", Alphabet::Hex, 48, 48),
    token("docker-token", "dckr_pat_", Alphabet::Url, 24, 64),
    token("anthropic-key", "sk-ant-", Alphabet::Url, 40, 255),
    token("openai-key", "sk-proj-", Alphabet::Url, 40, 255),
    token("hugging-face-token", "hf_", Alphabet::Letters, 34, 40),
    token("digitalocean-token", "dop_v1_", Alphabet::Hex, 64, 64),
    token("vault-token", "hvs.", Alphabet::Url, 24, 255),
    token("shopify-token", "shpat_", Alphabet::Hex, 32, 32),
    token("sendgrid-key", "SG.", Alphabet::Path, 60, 80),
    token("azure-storage-key", "AccountKey=", Alphabet::Base64, 88, 88),
    token("age-secret-key", "AGE-SECRET-KEY-1", Alphabet::UpperDigits, 58, 58),
];

/// What an assignment's key holds when its value may be a secret, in lower case. `_` stands for itself, `-` or nothing.
pub const KEYWORDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "api_key",
    "api-key",
    "apikey",
    "access_key",
    "access-key",
    "accesskey",
    "auth_key",
    "authkey",
    "private_key",
    "privatekey",
    "encryption_key",
    "signing_key",
    "credential",
];

/// The rest of a key behind its keyword, in lower case and without digits, `_` and `-`: any other rest speaks of something *about* a secret
/// (`token_type`, `password_field`, `secret_name`).
pub const KEY_ENDINGS: &[&str] = &[
    "",
    "key",
    "keybase",
    "value",
    "accesskey",
    "token",
    "prod",
    "production",
    "dev",
    "staging",
    "live",
    "s",
];

/// What a value holds, in lower case, when it stands for a secret instead of being one.
pub const PLACEHOLDERS: &[&str] = &[
    "${",
    "{{",
    "<%",
    "%(",
    "$(",
    "#{",
    "process.env",
    "getenv",
    "environ",
    "example",
    "changeme",
    "change_me",
    "change-me",
    "your",
    "xxxx",
    "****",
    "....",
    "placeholder",
    "dummy",
    "sample",
    "redacted",
    "replace",
    "insert",
    "todo",
    "fixme",
    "undefined",
    "null",
    "none",
    "test",
    "fake",
    "mock",
    "password",
    "passwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "default",
    "invalid",
    "bearer",
    "foobar",
    "123456",
];
