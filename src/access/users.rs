//! Users and their passwords' hashes, as a file has them: a line `name:hash` for each.

use std::collections::HashMap;
use std::fmt;

use ahash::RandomState;

use super::password::{Scratch, Secret};

/// The users that may log in.
#[derive(Clone, Debug, Default)]
pub struct Users {
    by_name: HashMap<Box<str>, usize, RandomState>,
    /// In the order of the file.
    secrets: Vec<Secret>,
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

    /// Whether the user exists and has this password. Takes milliseconds, on purpose.
    pub(super) fn verify(&self, name: &str, password: &[u8], scratch: &mut Scratch) -> bool {
        if let Some(at) = self.by_name.get(name) {
            return self.secrets[*at].is_of(password, scratch);
        }
        if let Some(decoy) = self.decoy(name) {
            let _ = decoy.is_of(password, scratch);
        }
        false
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
        let mut verify = |name, password: &str| users.verify(name, password.as_bytes(), &mut scratch);
        assert_eq!(users.len(), 2);
        assert!(verify("bob", "swordfish") && verify("anna maria", "swordfish"));
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
