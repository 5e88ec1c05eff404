//! What a key is: made, hashed, recognised.
//!
//! `tg_`, 43 characters of 256 random bits, 6 characters of checksum. The checksum tells a typo from
//! a wrong key without a look-up, and lets secret scanners recognise a leaked one. Only a keyed hash
//! is ever stored: whoever reads the database cannot call with what it finds there. A key is looked up by that
//! hash and never compared itself: how long it takes says nothing of how near a guess was.

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret as _, SecretString};

const PREFIX: &str = "tg_";
const RANDOM_CHARS: usize = 43; // 62^43 is just above 2^256
const CHECKSUM_CHARS: usize = 6; // 62^6 is just above 2^32
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The system's generator failed: no key can be made.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct NoRandomness;

/// A new key, from the system's generator.
///
/// # Errors
/// [`NoRandomness`] when the system has none to give.
pub fn make() -> Result<SecretString, NoRandomness> {
    let mut text = String::from(PREFIX);
    let mut bytes = [0_u8; 64];
    while text.len() < PREFIX.len() + RANDOM_CHARS {
        getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
        // 248 is the largest multiple of 62 in a byte: taking more would favour the first letters.
        let fair = bytes.iter().filter(|byte| **byte < 248).map(|byte| ALPHABET[usize::from(byte % 62)]);
        let missing = PREFIX.len() + RANDOM_CHARS - text.len();
        text.extend(fair.take(missing).map(char::from));
    }
    let checksum = checksum(&text);
    Ok(SecretString::from(text + &checksum))
}

/// Whether `text` has the form of a key and its checksum is right.
pub fn is_well_formed(text: &str) -> bool {
    text.len() == PREFIX.len() + RANDOM_CHARS + CHECKSUM_CHARS
        && text.starts_with(PREFIX)
        && text.is_ascii()
        && {
            let (body, sum) = text.split_at(PREFIX.len() + RANDOM_CHARS);
            body[PREFIX.len()..].bytes().all(|b| b.is_ascii_alphanumeric()) && checksum(body) == sum
        }
}

/// Whether `text` may be a key at all: one of ours, or one that was brought from API Management, which
/// makes 32 hexadecimal digits. Anything else is refused without a look-up, typos of our own among it.
pub fn may_be_one(text: &str) -> bool {
    is_well_formed(text) || is_imported(text)
}

/// Whether `text` has the form of API Management's own keys.
pub fn is_imported(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The last four characters, for people to tell their keys apart.
pub fn hint(key: &SecretString) -> String {
    let text = key.expose_secret();
    text[text.len().saturating_sub(4)..].to_owned()
}

fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().copied().map(char::from).collect()
}

/// A key as it is stored and looked up.
pub type KeyHash = [u8; 32];

/// Turns keys into their hashes: HMAC-SHA-256 under the gateway's pepper.
#[derive(Clone)]
pub struct Hasher(hmac::Key);

impl Hasher {
    pub fn new(pepper: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, pepper))
    }

    pub fn hash(&self, key: &str) -> KeyHash {
        let tag = hmac::sign(&self.0, key.as_bytes());
        tag.as_ref().try_into().expect("an SHA-256 tag has 32 bytes")
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher(..)")
    }
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub fn same_secret(given: &str, expected: &SecretString) -> bool {
    // Hashing first makes the lengths equal: neither content nor length shows in the time.
    let fold = |text: &str| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    aws_lc_rs::constant_time::verify_slices_are_equal(
        fold(given).as_ref(),
        fold(expected.expose_secret()).as_ref(),
    )
    .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_recognised_and_a_typo_is_not() {
        let key = make().unwrap();
        let text = key.expose_secret();
        assert!(is_well_formed(text), "{text}");
        for at in PREFIX.len()..text.len() {
            let mut typo = text.to_owned();
            let other = if &typo[at..=at] == "x" { "y" } else { "x" };
            typo.replace_range(at..=at, other);
            assert!(!is_well_formed(&typo), "a change at {at} goes unseen");
        }
        for bad in ["", "tg_", "sk-abc", &text[1..], &format!("{text}0")] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn a_key_from_api_management_may_be_one_and_a_typo_of_ours_may_not() {
        let key = make().unwrap();
        for good in
            ["0123456789abcdef0123456789abcdef", "0123456789ABCDEF0123456789abcdef", key.expose_secret()]
        {
            assert!(may_be_one(good), "{good}");
        }
        let typo = &key.expose_secret()[..32];
        for bad in [
            "",
            "sk-placeholder",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdeg",
            typo,
        ] {
            assert!(!may_be_one(bad), "{bad}");
        }
    }

    #[test]
    fn keys_differ_and_so_do_their_hashes_under_another_pepper() {
        let (one, two) = (make().unwrap(), make().unwrap());
        assert_ne!(one.expose_secret(), two.expose_secret());
        let hash = |pepper: &[u8]| Hasher::new(pepper).hash(one.expose_secret());
        assert_eq!(hash(b"pepper"), hash(b"pepper"));
        assert_ne!(hash(b"pepper"), hash(b"salt"));
    }

    #[test]
    fn secrets_are_the_same_only_when_they_are() {
        let expected = SecretString::from("not-a-real-key");
        assert!(same_secret("not-a-real-key", &expected));
        assert!(!same_secret("not-a-real-kez", &expected));
        assert!(!same_secret("", &expected));
    }
}
