//! Hashes of passwords: argon2id in its standard text form, and the two of mosquitto's.
//!
//! ```text
//! $argon2id$v=19$m=19456,t=2,p=1$salt$hash    (base64 without padding)
//! $7$iterations$salt$hash                     PBKDF2-HMAC-SHA512 (base64)
//! $6$salt$hash                                SHA512 of password and salt (base64)
//! ```
//! New ones are argon2id. Hashes are compared in constant time, and a name that nobody has costs as much as one that
//! somebody has.

use argon2::password_hash::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;

/// Cost of new hashes: 19 MiB, 2 passes, 1 lane; about 36 ms.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const HASH_BYTES: usize = 32;

/// Bytes of salt of new hashes.
pub(super) const SALT_BYTES: usize = 16;

/// What a hash in a file may cost at most; beyond it the file is wrong, or made to stop the broker.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 64;
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

impl Secret {
    /// # Errors
    /// What is wrong with `text`; never holds any of it.
    pub(super) fn parse(text: &str) -> Result<Secret, &'static str> {
        if let Some(rest) = text.strip_prefix("$6$") {
            let (salt, hash) = rest.split_once('$').ok_or("a $6$ hash has a salt and a hash")?;
            return Secret::new(Method::Sha512, bytes(salt)?, bytes(hash)?);
        }
        if let Some(rest) = text.strip_prefix("$7$") {
            let mut parts = rest.splitn(3, '$');
            let (Some(iterations), Some(salt), Some(hash)) = (parts.next(), parts.next(), parts.next())
            else {
                return Err("a $7$ hash has iterations, a salt and a hash");
            };
            let iterations: u32 = iterations.parse().map_err(|_| "the iterations are not a number")?;
            if !(1..=ITERATIONS_MAX).contains(&iterations) {
                return Err("too many iterations, or none");
            }
            return Secret::new(Method::Pbkdf2 { iterations }, bytes(salt)?, bytes(hash)?);
        }
        if text.starts_with("$argon2") {
            return Secret::parse_argon2(text);
        }
        Err("neither an argon2 hash nor one of mosquitto's ($6$, $7$); to make one: ringmq passwd FILE USER")
    }

    fn parse_argon2(text: &str) -> Result<Secret, &'static str> {
        const WRONG: &str = "not a valid argon2 hash";
        let parsed = PasswordHash::new(text).map_err(|_| WRONG)?;
        let algorithm = Algorithm::try_from(parsed.algorithm).map_err(|_| WRONG)?;
        let version = parsed.version.map_or(Ok(Version::V0x13), Version::try_from).map_err(|_| WRONG)?;
        let params = Params::try_from(&parsed).map_err(|_| WRONG)?;
        if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
            return Err("the argon2 hash asks for more than 1 GiB or 64 passes");
        }
        let mut buffer = [0; 64];
        let salt = parsed.salt.ok_or(WRONG)?.decode_b64(&mut buffer).map_err(|_| WRONG)?;
        let hash = parsed.hash.ok_or(WRONG)?;
        Secret::new(Method::Argon2 { algorithm, version, params }, salt.into(), hash.as_bytes().into())
    }

    fn new(method: Method, salt: Box<[u8]>, hash: Box<[u8]>) -> Result<Secret, &'static str> {
        // An empty hash would equal any other.
        if hash.len() < 16 { Err("the hash is too short") } else { Ok(Secret { method, salt, hash }) }
    }

    /// A new argon2id hash. `salt` is random.
    pub(super) fn derive(password: &[u8], salt: [u8; SALT_BYTES], scratch: &mut Scratch) -> Option<Secret> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).ok()?;
        let method = Method::Argon2 { algorithm: Algorithm::Argon2id, version: Version::V0x13, params };
        let mut secret = Secret { method, salt: salt.into(), hash: [0; HASH_BYTES].into() };
        secret.hash = secret.compute(password, scratch)?;
        Some(secret)
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
    pub(super) fn is_of(&self, password: &[u8], scratch: &mut Scratch) -> bool {
        self.compute(password, scratch).is_some_and(|hash| hash.ct_eq(&self.hash).into())
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
                // A hash of another length cannot be one of these.
                (hash.len() == full.len()).then(|| hash.copy_from_slice(&full))?;
            }
        }
        Some(hash)
    }
}

fn bytes(text: &str) -> Result<Box<[u8]>, &'static str> {
    STANDARD.decode(text).map(Vec::into_boxed_slice).map_err(|_| "not base64")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_of(secret: &str, password: &str) -> bool {
        Secret::parse(secret).unwrap().is_of(password.as_bytes(), &mut Scratch::default())
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
        let secret = Secret::derive("gr\u{fc}n".as_bytes(), [7; SALT_BYTES], &mut scratch).unwrap();
        let text = secret.text();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let read = Secret::parse(&text).unwrap();
        assert!(read == secret && read.text() == text);
        for (password, right) in
            [("gr\u{fc}n", true), ("gru\u{308}n", false), ("", false), ("gr\u{fc}n\0", false)]
        {
            assert_eq!(read.is_of(password.as_bytes(), &mut scratch), right, "{password:?}");
        }
        assert!(!format!("{secret:?}").contains('7'), "a secret does not print itself");
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
            huge,
        ] {
            assert!(Secret::parse(text).is_err(), "{text}");
        }
    }
}
