//! Users and their passwords' hashes, as a file has them: a line `name:hash` for each.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use ahash::RandomState;

use super::password::{Scratch, Secret};

/// Different costs of which hashes are measured, and for how long each.
const MEASURED_COSTS_MAX: usize = 4;
const MEASURED_FOR: Duration = Duration::from_millis(50);

/// The users that may log in.
#[derive(Clone, Debug, Default)]
pub struct Users {
    by_name: HashMap<Box<str>, usize, RandomState>,
    /// In the order of the file.
    secrets: Vec<Secret>,
}

/// Whose hash a password is compared with.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Theirs,
    /// Some user's, so that the time of the answer does not say that there is no such user. It never fits.
    Decoy,
}

/// What is wrong with a file of users, and where. Holds nothing of any hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersError {
    /// From 1.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for UsersError {}

impl Users {
    /// # Errors
    /// The first line that is not a user.
    pub fn parse(text: &str) -> Result<Users, UsersError> {
        let mut users = Users::default();
        if text.starts_with('\u{feff}') {
            let what =
                "a byte order mark, which would become part of a name; save the file as UTF-8 without one";
            return Err(UsersError { line: 1, what: what.to_owned() });
        }
        for (index, line) in text.lines().enumerate() {
            let wrong = |what: String| UsersError { line: index + 1, what };
            let Some(name) = name_in(line) else {
                if is_blank(line) {
                    continue;
                }
                return Err(wrong("a user name, a colon and a hash are expected".to_owned()));
            };
            let secret = Secret::parse(line[name.len() + 1..].trim_end())
                .map_err(|why| wrong(format!("user {name:?}: {why}")))?;
            if users.by_name.insert(name.into(), users.secrets.len()).is_some() {
                return Err(wrong(format!("user {name:?} is there twice")));
            }
            users.secrets.push(secret);
        }
        Ok(users)
    }

    pub fn len(&self) -> usize {
        self.secrets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// How long a hash of this file takes here, on average; `None` if there are none. Some of each cost are measured, a few
    /// hundred milliseconds of them at most.
    pub fn measure(&self) -> Option<Duration> {
        let mut costs: HashMap<u64, (u32, &Secret), RandomState> = HashMap::default();
        for secret in &self.secrets {
            costs.entry(secret.micros()).or_insert((0, secret)).0 += 1;
        }
        let mut by_count: Vec<_> = costs.into_values().collect();
        by_count.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        by_count.truncate(MEASURED_COSTS_MAX);
        let (mut sum, mut measured) = (Duration::ZERO, 0);
        for (count, secret) in by_count {
            let mut scratch = Scratch::default();
            secret.is_of(b"measured", &mut scratch).ok()?; // whose memory is new
            let start = Instant::now();
            let mut hashes = 0;
            while hashes == 0 || start.elapsed() < MEASURED_FOR {
                secret.is_of(b"measured", &mut scratch).ok()?;
                hashes += 1;
            }
            sum += start.elapsed() / hashes * count;
            measured += count;
        }
        (measured > 0).then(|| sum / measured)
    }

    /// Whether there is a user of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The hash to compare a password with, and whether it is this user's. `None` if there are no users at all.
    pub(super) fn secret(&self, name: &str) -> Option<(&Secret, Whose)> {
        match self.by_name.get(name) {
            Some(at) => Some((&self.secrets[*at], Whose::Theirs)),
            None => Some((self.decoy(name)?, Whose::Decoy)),
        }
    }

    /// Hashed in place of a name that nobody has, so that it cannot be told by the time that it takes. Each such name
    /// keeps its own: where hashes of several costs stand in a file, it is as slow or as fast as one of them, always.
    fn decoy(&self, name: &str) -> Option<&Secret> {
        let at = self.by_name.hasher().hash_one(name) as usize;
        self.secrets.get(at.checked_rem(self.secrets.len())?)
    }
}

/// Whether a line means nothing.
fn is_blank(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with('#')
}

/// The user of a line, if it is one of a user.
pub(super) fn name_in(line: &str) -> Option<&str> {
    let (name, _) = line.split_once(':')?;
    (!is_blank(line) && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$6$AAECAwQFBgcICQoL$Y4WPO0ICbkFB25Sxdu2LoRRrxHn+5vSWhC2EUmSYoLLtUV8GIc4CVeWWuvFv5IE5M6bpTbvMD7qDxLQrWa4e8Q==";

    #[test]
    fn reads_a_file_of_users() {
        let users = Users::parse(&format!("# staff\n\nbob:{HASH}\nanna maria:{HASH}\n")).unwrap();
        let mut scratch = Scratch::default();
        let mut verify = |name, password: &str| {
            let (secret, whose) = users.secret(name).unwrap();
            whose == Whose::Theirs && secret.is_of(password.as_bytes(), &mut scratch).unwrap()
        };
        assert_eq!(users.len(), 2);
        assert!(verify("bob", "swordfish") && verify("anna maria", "swordfish"));
        assert!(users.contains("bob") && !users.contains("carol"));
        assert!(!verify("bob", "Swordfish") && !verify("carol", "swordfish") && !verify("", "swordfish"));
    }

    /// Or the time of a refusal would tell the names of those whose hash costs less than the first one's.
    #[test]
    fn names_that_nobody_has_cost_what_users_cost_and_always_the_same() {
        let other = HASH.replace("Y4WPO0", "Z4WPO0");
        let users = Users::parse(&format!("bob:{HASH}\neve:{other}\n")).unwrap();
        let mut chosen = std::collections::BTreeMap::new();
        for name in (0..100).map(|number| format!("nobody-{number}")) {
            let text = users.decoy(&name).unwrap().text();
            assert_eq!(users.decoy(&name).unwrap().text(), text);
            *chosen.entry(text).or_insert(0) += 1;
        }
        assert!(chosen.len() == 2 && chosen.values().all(|count| *count > 10), "{chosen:?}");
        assert!(Users::default().decoy("bob").is_none());
    }

    #[test]
    fn an_error_names_the_line_and_no_hash() {
        let wrong = [
            ("bob\n".to_owned(), 1),
            (format!("bob:{HASH}\n:{HASH}\n"), 2),
            (format!("bob:{HASH}\n\nbob:{HASH}\n"), 3),
            ("# x\nbob:plaintext\n".to_owned(), 2),
        ];
        for (text, line) in wrong {
            let error = Users::parse(&text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(
                !error.to_string().contains("plaintext") && !error.to_string().contains("Y4WP"),
                "{error}"
            );
        }
    }
}
