//! Credentials that were verified, so that a client which comes back costs no second hash.
//!
//! No password is kept: an entry is a keyed MAC over name and password, and the key lives and dies with the process. An
//! entry is believed for a while and as long as the users are the same. After that it says only that its client was
//! probably let in before, who is then heard before others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pbkdf2::hmac::{Hmac, Mac};
use sha2::Sha256;

use super::recent::Recent;

/// How long an entry is believed. A reload of the users ends it at once.
pub(super) const VERIFIED_TTL: Duration = Duration::from_secs(3600);

/// Entries at most; those that were used last are remembered.
pub(super) const VERIFIED_MAX: usize = 262_144;

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

#[derive(Debug)]
pub(super) struct Verified {
    entries: Recent<Tag, Entry>,
}

#[derive(Debug)]
struct Entry {
    user: Arc<str>,
    until: Instant,
    /// Of the users that know it.
    epoch: u32,
}

impl Default for Verified {
    fn default() -> Verified {
        Verified { entries: Recent::new(VERIFIED_MAX) }
    }
}

impl Verified {
    /// The user, if that was verified a while ago with the users of this epoch.
    pub(super) fn get(&mut self, tag: &Tag, epoch: u32, now: Instant) -> Option<Arc<str>> {
        let entry = self.entries.get_mut(tag)?;
        (entry.epoch == epoch && now < entry.until).then(|| entry.user.clone())
    }

    /// Whether it was ever verified, as far as that is remembered.
    pub(super) fn knows(&self, tag: &Tag) -> bool {
        self.entries.peek(tag).is_some()
    }

    pub(super) fn insert(&mut self, tag: Tag, user: Arc<str>, epoch: u32, now: Instant) {
        self.entries.insert(tag, Entry { user, until: now + VERIFIED_TTL, epoch });
    }

    /// It has turned out to be wrong.
    pub(super) fn forget(&mut self, tag: &Tag) {
        self.entries.remove(tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_for_one_pair_and_for_a_while_and_for_these_users() {
        let tagger = Tagger::new([1; 32]);
        let start = Instant::now();
        let mut verified = Verified::default();
        let tag = tagger.tag(0, "ann", b"bc");
        verified.insert(tag, "ann".into(), 1, start);
        let mut get = |user, password: &str, epoch, at| {
            verified.get(&tagger.tag(0, user, password.as_bytes()), epoch, at)
        };
        assert_eq!(get("ann", "bc", 1, start).as_deref(), Some("ann"));
        assert_eq!(get("annb", "c", 1, start), None, "name and password are kept apart");
        assert_eq!(get("ann", "bd", 1, start), None);
        assert_eq!(get("ann", "bc", 1, start + VERIFIED_TTL), None);
        assert_eq!(get("ann", "bc", 2, start), None, "the users have changed");
        assert_eq!(verified.get(&tagger.tag(1, "ann", b"bc"), 1, start), None, "another file's user");
        assert_ne!(Tagger::new([2; 32]).tag(0, "ann", b"bc"), tag);
        assert!(verified.knows(&tag));
        verified.forget(&tag);
        assert!(!verified.knows(&tag));
    }
}
