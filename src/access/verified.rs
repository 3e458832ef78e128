//! Credentials that were verified a moment ago, so that a client which comes back costs no second hash.
//!
//! No password is kept: an entry is a keyed MAC over name and password, and the key lives and dies with the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use pbkdf2::hmac::{Hmac, Mac};
use sha2::Sha256;

/// How long an entry holds: a password that was changed is refused after this time, or at once after a reload.
pub(super) const VERIFIED_TTL: Duration = Duration::from_secs(60);

/// Entries at most. Beyond it nothing more is remembered until entries run out.
pub(super) const VERIFIED_MAX: usize = 65_536;

/// Stands for a name and a password.
pub(super) type Tag = [u8; 32];

/// Makes tags; the same everywhere in the process.
#[derive(Clone)]
pub(super) struct Tagger([u8; 32]);

impl Tagger {
    /// `key` is random.
    pub(super) fn new(key: [u8; 32]) -> Tagger {
        Tagger(key)
    }

    /// `users` is the file that knows the user: a name may stand in several.
    pub(super) fn tag(&self, users: u16, user: &str, password: &[u8]) -> Tag {
        // Any key length is taken, so the error does not happen; a tag without its key would be worse than none.
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(&users.to_be_bytes());
        mac.update(&(user.len() as u64).to_be_bytes());
        mac.update(user.as_bytes());
        mac.update(password);
        mac.finalize().into_bytes().into()
    }
}

#[derive(Debug, Default)]
pub(super) struct Verified {
    entries: HashMap<Tag, Entry, RandomState>,
}

#[derive(Debug)]
struct Entry {
    user: Arc<str>,
    until: Instant,
}

impl Verified {
    pub(super) fn get(&self, tag: &Tag, now: Instant) -> Option<Arc<str>> {
        let entry = self.entries.get(tag)?;
        (now < entry.until).then(|| entry.user.clone())
    }

    pub(super) fn insert(&mut self, tag: Tag, user: Arc<str>, now: Instant) {
        if self.entries.len() >= VERIFIED_MAX {
            self.entries.retain(|_, entry| now < entry.until);
        }
        if self.entries.len() < VERIFIED_MAX {
            self.entries.insert(tag, Entry { user, until: now + VERIFIED_TTL });
        }
    }

    /// Forgets everything, since the users have changed.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_for_one_pair_and_for_a_while() {
        let tagger = Tagger::new([1; 32]);
        let start = Instant::now();
        let mut verified = Verified::default();
        verified.insert(tagger.tag(0, "ann", b"bc"), "ann".into(), start);
        let get = |user, password: &str, at| verified.get(&tagger.tag(0, user, password.as_bytes()), at);
        assert_eq!(get("ann", "bc", start).as_deref(), Some("ann"));
        assert_eq!(get("annb", "c", start), None, "name and password are kept apart");
        assert_eq!(get("ann", "bd", start), None);
        assert_eq!(get("ann", "bc", start + VERIFIED_TTL), None);
        assert_eq!(verified.get(&tagger.tag(1, "ann", b"bc"), start), None, "another file's user");
        assert_ne!(Tagger::new([2; 32]).tag(0, "ann", b"bc"), tagger.tag(0, "ann", b"bc"));
    }

    #[test]
    fn it_is_bounded_and_expired_entries_give_way() {
        let start = Instant::now();
        let mut verified = Verified::default();
        let tag = |number: usize| {
            let mut tag = [0; 32];
            tag[..8].copy_from_slice(&number.to_be_bytes());
            tag
        };
        for number in 0..VERIFIED_MAX + 10 {
            verified.insert(tag(number), "u".into(), start);
        }
        assert_eq!(verified.entries.len(), VERIFIED_MAX);
        let later = start + VERIFIED_TTL;
        verified.insert(tag(VERIFIED_MAX + 10), "u".into(), later);
        assert_eq!(verified.entries.len(), 1);
        assert!(verified.get(&tag(VERIFIED_MAX + 10), later).is_some());
    }
}
