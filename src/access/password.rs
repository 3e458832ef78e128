//! Hashes of passwords: argon2id in its standard text form, and the two of mosquitto's.
//!
//! ```text
//! $argon2id$v=19$m=1024,t=1,p=1$salt$hash     (base64 without padding; mosquitto 2.1 writes it too)
//! $7$iterations$salt$hash                     PBKDF2-HMAC-SHA512 (base64)
//! $6$salt$hash                                SHA512 of password and salt (base64)
//! ```
//! New ones are argon2id, as dear as [`super::cost`] has it. Hashes are compared in constant time, and a name that nobody has costs as much as one that
//! somebody has.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

use super::cost::{self, Cost, LANES_MAX, MEMORY_KIB_MAX, PASSES_MAX};

const HASH_BYTES: usize = 32;

/// Bytes of salt of new hashes.
pub(super) const SALT_BYTES: usize = 16;

/// Bytes of a hash. Those of mosquitto have 64.
const HASH_LENGTHS: std::ops::RangeInclusive<usize> = 16..=1024;
const ITERATIONS_MAX: u32 = 10_000_000;

/// A password's hash, and what it takes to compute it again.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret {
    method: Method,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

#[derive(Clone, PartialEq, Eq)]
enum Method {
    Argon2 { algorithm: Algorithm, version: Version, params: Params },
    Pbkdf2 { iterations: u32 },
    Sha512,
}

/// Leaves out the secret.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

/// Memory for hashing, kept by a thread that hashes one password after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch(Vec<Block>);

/// There is no memory to compute a hash.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct NoMemory;

impl Secret {
    /// # Errors
    /// What is wrong with `text`; holds nothing of salt and hash.
    pub(super) fn parse(text: &str) -> Result<Secret, String> {
        if let Some(rest) = text.strip_prefix("$6$") {
            let (salt, hash) = rest.split_once('$').ok_or("a $6$ hash has a salt and a hash")?;
            let hash = bytes(hash)?;
            if hash.len() != Sha512::output_size() {
                return Err("the hash is none of SHA512".to_owned());
            }
            return Secret::new(Method::Sha512, bytes(salt)?, hash);
        }
        if let Some(rest) = text.strip_prefix("$7$") {
            let mut parts = rest.splitn(3, '$');
            let (Some(iterations), Some(salt), Some(hash)) = (parts.next(), parts.next(), parts.next())
            else {
                return Err("a $7$ hash has iterations, a salt and a hash".to_owned());
            };
            let iterations: u32 = iterations.parse().map_err(|_| "the iterations are not a number")?;
            if !(1..=ITERATIONS_MAX).contains(&iterations) {
                return Err(format!("{iterations} iterations; between 1 and {ITERATIONS_MAX} are taken"));
            }
            return Secret::new(Method::Pbkdf2 { iterations }, bytes(salt)?, bytes(hash)?);
        }
        if text.starts_with("$argon2") {
            return Secret::parse_argon2(text);
        }
        Err("neither an argon2 hash nor one of mosquitto's ($6$, $7$); to make one: ringmq passwd FILE USER"
            .to_owned())
    }

    /// Salts and hashes may be longer than the 48 bytes that the text form's own description allows: mosquitto's have 64.
    fn parse_argon2(text: &str) -> Result<Secret, String> {
        const WRONG: &str = "not a valid argon2 hash";
        let mut parts = text[1..].split('$');
        let mut next = || parts.next().ok_or(WRONG);
        let algorithm = Algorithm::new(next()?).map_err(|_| WRONG)?;
        let mut given = next()?;
        let version = match given.strip_prefix("v=") {
            Some(version) => {
                given = next()?;
                version.parse().ok().and_then(|number: u32| Version::try_from(number).ok()).ok_or(WRONG)?
            }
            None => Version::V0x10, // it was not written in that version's time
        };
        let Cost { memory_kib, passes, lanes } = cost::parameters(given).ok_or(WRONG)?;
        let (salt, hash) = (bytes(next()?)?, bytes(next()?)?);
        if parts.next().is_some() {
            return Err(WRONG.to_owned());
        }
        for (name, asked, max) in
            [("m", memory_kib, MEMORY_KIB_MAX), ("t", passes, PASSES_MAX), ("p", lanes, LANES_MAX)]
        {
            if asked > max {
                return Err(format!(
                    "the argon2 hash asks for {name}={asked}; at most {name}={max} is taken"
                ));
            }
        }
        let params = Params::new(memory_kib, passes, lanes, Some(hash.len()))
            .map_err(|error| format!("{WRONG}: {error}"))?;
        if salt.len() < argon2::MIN_SALT_LEN {
            return Err(format!("{WRONG}: its salt is too short"));
        }
        Secret::new(Method::Argon2 { algorithm, version, params }, salt, hash)
    }

    fn new(method: Method, salt: Box<[u8]>, hash: Box<[u8]>) -> Result<Secret, String> {
        // An empty hash would equal any other.
        if HASH_LENGTHS.contains(&hash.len()) {
            Ok(Secret { method, salt, hash })
        } else {
            Err("the hash is too short or too long".to_owned())
        }
    }

    /// A new argon2id hash. `salt` is random.
    pub(super) fn derive(
        password: &[u8],
        salt: [u8; SALT_BYTES],
        cost: Cost,
        scratch: &mut Scratch,
    ) -> Option<Secret> {
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(HASH_BYTES)).ok()?;
        let method = Method::Argon2 { algorithm: Algorithm::Argon2id, version: Version::V0x13, params };
        let mut secret = Secret { method, salt: salt.into(), hash: [0; HASH_BYTES].into() };
        secret.hash = secret.compute(password, scratch)?;
        Some(secret)
    }

    /// Microseconds that a core of our days is busy with it, roughly: what a failed login is charged.
    pub(super) fn micros(&self) -> u64 {
        match &self.method {
            Method::Argon2 { params, .. } => params.block_count() as u64 * u64::from(params.t_cost()) * 2 / 5,
            Method::Pbkdf2 { iterations } => u64::from(*iterations) * 2 / 5,
            Method::Sha512 => 1,
        }
    }

    /// Bytes that it takes to compute it.
    pub(super) fn memory(&self) -> usize {
        match &self.method {
            Method::Argon2 { params, .. } => params.block_count() * size_of::<Block>(),
            Method::Pbkdf2 { .. } | Method::Sha512 => 0,
        }
    }

    /// As it stands in a file.
    pub(super) fn text(&self) -> String {
        match &self.method {
            Method::Argon2 { algorithm, version, params } => format!(
                "${}$v={}$m={},t={},p={}${}${}",
                algorithm.as_str(),
                u32::from(*version),
                params.m_cost(),
                params.t_cost(),
                params.p_cost(),
                STANDARD_NO_PAD.encode(&self.salt),
                STANDARD_NO_PAD.encode(&self.hash),
            ),
            Method::Pbkdf2 { iterations } => {
                format!("$7${iterations}${}${}", STANDARD.encode(&self.salt), STANDARD.encode(&self.hash))
            }
            Method::Sha512 => format!("$6${}${}", STANDARD.encode(&self.salt), STANDARD.encode(&self.hash)),
        }
    }

    /// Whether it is the hash of `password`; takes as long either way.
    ///
    /// # Errors
    /// That it cannot be told.
    pub(super) fn is_of(&self, password: &[u8], scratch: &mut Scratch) -> Result<bool, NoMemory> {
        let hash = self.compute(password, scratch).ok_or(NoMemory)?;
        Ok(hash.ct_eq(&self.hash).into())
    }

    /// `None` where the machine cannot give the memory for it.
    fn compute(&self, password: &[u8], scratch: &mut Scratch) -> Option<Box<[u8]>> {
        let mut hash = vec![0; self.hash.len()].into_boxed_slice();
        match &self.method {
            Method::Argon2 { algorithm, version, params } => {
                let blocks = params.block_count();
                scratch.0.try_reserve(blocks.saturating_sub(scratch.0.len())).ok()?;
                scratch.0.resize(blocks.max(scratch.0.len()), Block::default());
                Argon2::new(*algorithm, *version, params.clone())
                    .hash_password_into_with_memory(password, &self.salt, &mut hash, &mut scratch.0[..blocks])
                    .ok()?;
            }
            Method::Pbkdf2 { iterations } => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password, &self.salt, *iterations, &mut hash);
            }
            Method::Sha512 => {
                let full = Sha512::new().chain_update(password).chain_update(&self.salt).finalize();
                return Some(full.as_slice().into());
            }
        }
        Some(hash)
    }
}

/// With padding or without: argon2's text form has none, mosquitto's own have it.
fn bytes(text: &str) -> Result<Box<[u8]>, &'static str> {
    let bare = text.strip_suffix("==").or(text.strip_suffix('=')).unwrap_or(text);
    STANDARD_NO_PAD.decode(bare).map(Vec::into_boxed_slice).map_err(|_| "salt or hash is not base64")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_of(secret: &str, password: &str) -> bool {
        Secret::parse(secret).unwrap().is_of(password.as_bytes(), &mut Scratch::default()).unwrap()
    }

    /// Made by other programs: the reference implementation of argon2, and mosquitto_passwd 2.0.
    #[test]
    fn reads_what_others_wrote() {
        let argon2 = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        assert!(is_of(argon2, "password") && !is_of(argon2, "Password"));
        let mosquitto = "$7$101$ENnXotgCNZjh1Dbs$LCH7xfZzz/gB5MkP3eTYoBP3uX/dWYXLUE8H/lf8YyoieM56KT4rM7y6TurrVrmQcq2y\
                         hdg5eSP+dggjV4I6cQ==";
        assert!(is_of(mosquitto, "swordfish") && !is_of(mosquitto, "swordfis"));
        let mosquitto = "$6$AAECAwQFBgcICQoL$Y4WPO0ICbkFB25Sxdu2LoRRrxHn+5vSWhC2EUmSYoLLtUV8GIc4CVeWWuvFv5IE5M6bpTbvM\
                         D7qDxLQrWa4e8Q==";
        assert!(is_of(mosquitto, "swordfish") && !is_of(mosquitto, "swordfish "));
    }

    #[test]
    fn what_is_made_is_read_again_and_holds_for_one_password() {
        let mut scratch = Scratch::default();
        let secret =
            Secret::derive("gr\u{fc}n".as_bytes(), [7; SALT_BYTES], Cost::DEVICE, &mut scratch).unwrap();
        let text = secret.text();
        assert!(text.starts_with("$argon2id$v=19$m=1024,t=1,p=1$"), "{text}");
        let read = Secret::parse(&text).unwrap();
        assert!(read == secret && read.text() == text);
        for (password, right) in
            [("gr\u{fc}n", true), ("gru\u{308}n", false), ("", false), ("gr\u{fc}n\0", false)]
        {
            assert_eq!(read.is_of(password.as_bytes(), &mut scratch), Ok(right), "{password:?}");
        }
        assert!(!format!("{secret:?}").contains('7'), "a secret does not print itself");
    }

    /// Salt and hash of 64 bytes, as mosquitto 2.1 writes them; made by the reference implementation.
    #[test]
    fn reads_argon2id_of_mosquitto_2_1() {
        let salt = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw";
        let hash = "k9Q110CVFBynj61uYM9IFCIGQNlQgepZRL99uiZGDUQ4WmSrSsg7UK6oBG/nZphlItzT5jz2uaspskFRF+0pcg";
        let secret = format!("$argon2id$v=19$m=47104,t=1,p=1${salt}${hash}");
        assert!(is_of(&secret, "swordfish") && !is_of(&secret, "swordfish "));
        assert_eq!(Secret::parse(&secret).unwrap().text(), secret);
        let hash = "Y48RhFjwFZpTJj+E/X8yToEq93nP8uDbgCBrM1axqFEJwXXM7VSD5mYJKux7G+vGRNoFwXPZb6q3WcnRNKoyMw";
        let lanes = format!("$argon2id$v=19$m=64,t=2,p=4${salt}${hash}");
        assert!(is_of(&lanes, "swordfish") && !is_of(&lanes, "swordfis"));
    }

    #[test]
    fn a_hash_that_asks_for_too_much_is_named() {
        let salt = "c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        for (parameters, named) in [
            ("m=4194304,t=1,p=1", "m=4194304; at most m=1048576"),
            ("m=64,t=100,p=1", "t=100; at most t=64"),
            ("m=4096,t=1,p=200", "p=200; at most p=64"),
        ] {
            let error = Secret::parse(&format!("$argon2id$v=19${parameters}${salt}")).err().unwrap();
            assert!(error.contains(named) && !error.contains("c29t"), "{error}");
        }
    }

    #[test]
    fn refuses_what_is_no_hash() {
        let huge = "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$Hs3nhkhg3h0gJA7EXzJI5Q";
        for text in [
            "",
            "secret",
            "$5$a$b",
            "$6$",
            "$6$$",
            "$6$!$!",
            "$7$0$AAAA$AAAA",
            "$7$x$AAAA$AAAA",
            "$7$4294967295$AAAA$AAAA",
            "$7$101$AAAA$",
            "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ",
            "$argon2id$",
            "$argon2xx$v=19$m=64,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=20$m=64,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=64,t=0,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=8,t=1,p=2$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=64,t=2,p=1$c29t$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4$x",
            huge,
        ] {
            assert!(Secret::parse(text).is_err(), "{text}");
        }
    }
}
