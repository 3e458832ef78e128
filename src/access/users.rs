//! Users and their passwords' hashes, as a file has them: a line `name:hash` for each.

use std::collections::HashMap;
use std::fmt;

use ahash::RandomState;

use super::password::{Scratch, Secret};

/// The users that may log in.
#[derive(Clone, Debug, Default)]
pub struct Users {
    secrets: HashMap<Box<str>, Secret, RandomState>,
    /// Hashed for names that nobody has, so that they cannot be told by the time it takes.
    decoy: Option<Secret>,
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
            users.decoy.get_or_insert_with(|| secret.clone());
            if users.secrets.insert(name.into(), secret).is_some() {
                return Err(wrong(format!("user {name:?} is there twice")));
            }
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
        match (self.secrets.get(name), &self.decoy) {
            (Some(secret), _) => secret.is_of(password, scratch),
            (None, Some(decoy)) => {
                let _ = decoy.is_of(password, scratch);
                false
            }
            (None, None) => false,
        }
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
