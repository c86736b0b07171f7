//! Keys in words, so that people can compare them over a telephone.

use skep_rules::key::KeyId;

/// A key's name in words, for comparing it by voice: the first 132 bits of it in words of BIP 39's English list, 11 bits each.
#[must_use]
pub fn of(id: KeyId) -> String {
    let list = bip39::Language::English.word_list();
    let bit = |at: usize| {
        id.as_bytes()
            .get(at / 8)
            .is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
    };
    let word = |at: usize| {
        let index = (0..11).fold(0, |index, offset| index << 1 | usize::from(bit(at * 11 + offset)));
        list.get(index).copied().unwrap_or_default()
    };
    (0..12).map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use skep_rules::key::PublicKey;

    use super::*;

    #[test]
    fn words_tell_keys_apart_and_stay_what_they_are() {
        let id = |byte| PublicKey::from_bytes([byte; 32]).id();
        assert_eq!(of(id(7)).split(' ').count(), 12);
        assert_ne!(of(id(7)), of(id(8)));
        let zero: KeyId = format!("key_{}", "0".repeat(64)).parse().unwrap();
        assert_eq!(of(zero), ["abandon"; 12].join(" "));
        let ones: KeyId = format!("key_{}", "f".repeat(64)).parse().unwrap();
        assert_eq!(of(ones), ["zoo"; 12].join(" "));
        // 001 in hexadecimal digits begins the first word's 11 bits with 0, the second's with 1.
        let second: KeyId = format!("key_001{}", "0".repeat(61)).parse().unwrap();
        assert_eq!(of(second), format!("abandon length{}", " abandon".repeat(10)));
    }
}
