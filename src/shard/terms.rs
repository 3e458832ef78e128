//! What each connected client was told it may send, in its CONNACK: a limit that changes later does not change that.
//!
//! Clients that were told the same share one entry, so a connection has one byte of this. An entry is free once the last
//! client that was told it is gone.

use crate::limits::{Limits, ListenerLimits};

/// What CONNACK says of packets; the Receive Maximum is in the [`crate::session::Link`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub packet_size_max: u32,
    pub topic_alias_max: u16,
}

impl Terms {
    pub fn of(limits: &Limits, own: &ListenerLimits) -> Terms {
        Terms { packet_size_max: own.packet_size_max, topic_alias_max: limits.topic_alias_max }
    }
}

#[derive(Debug)]
struct Entry {
    terms: Terms,
    /// That were told it and are connected.
    clients: u32,
}

/// What was told to clients that are connected.
#[derive(Debug, Default)]
pub(super) struct Told {
    entries: Vec<Entry>,
    /// Mostly what the next client is told.
    last: u8,
}

/// Different terms at once; what comes beyond them is told as the client before was told.
const TERMS_MAX: usize = 1 << u8::BITS;

impl Told {
    /// A client is told `terms`. Returns what it is told indeed, and the number of that.
    pub fn tell(&mut self, terms: Terms) -> (u8, Terms) {
        let entries = &mut self.entries;
        let is_same = |entry: &Entry| entry.terms == terms;
        let last = usize::from(self.last);
        let at = if entries.get(last).is_some_and(is_same) {
            Some(last)
        } else {
            entries.iter().position(is_same)
        };
        let at = at.unwrap_or_else(|| {
            let free = entries.iter().position(|entry| entry.clients == 0);
            match free {
                Some(free) => entries[free].terms = terms,
                None if entries.len() < TERMS_MAX => entries.push(Entry { terms, clients: 0 }),
                None => return last,
            }
            free.unwrap_or(entries.len() - 1)
        });
        self.last = at as u8;
        entries[at].clients += 1;
        (self.last, entries[at].terms)
    }

    /// A client that was told it is gone.
    pub fn forget(&mut self, number: u8) {
        if let Some(entry) = self.entries.get_mut(usize::from(number)) {
            debug_assert!(entry.clients > 0, "nobody was told {entry:?}");
            entry.clients = entry.clients.saturating_sub(1);
        }
    }

    /// What a client was told.
    #[inline]
    pub fn terms(&self, number: u8) -> Terms {
        self.entries.get(usize::from(number)).map_or(Terms::NONE, |entry| entry.terms)
    }
}

impl Terms {
    /// Nobody is told this.
    const NONE: Terms = Terms { packet_size_max: 0, topic_alias_max: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(packet_size_max: u32) -> Terms {
        Terms { packet_size_max, topic_alias_max: 7 }
    }

    #[test]
    fn what_a_client_was_told_stays_until_it_is_gone() {
        let mut told = Told::default();
        let (one, _) = told.tell(terms(1));
        let (two, _) = told.tell(terms(2));
        assert_eq!(told.tell(terms(1)), (one, terms(1)));
        told.forget(one);
        let (three, _) = told.tell(terms(3));
        assert_eq!([one, two, three].map(|number| told.terms(number)), [1, 2, 3].map(terms));
        told.forget(one);
        assert_eq!(told.tell(terms(4)), (one, terms(4)), "free again");
    }

    #[test]
    fn a_client_too_many_is_told_what_another_was() {
        let mut told = Told::default();
        (0..TERMS_MAX as u32).for_each(|size| _ = told.tell(terms(size)));
        let (number, same) = told.tell(terms(1_000));
        assert_eq!((same, told.terms(number)), (terms(TERMS_MAX as u32 - 1), same));
        told.forget(3);
        assert_eq!(told.tell(terms(1_000)), (3, terms(1_000)));
    }
}
