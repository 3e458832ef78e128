//! The Packet Identifiers of one publisher, and what is known of each message in flight.

use std::collections::VecDeque;

/// What a message in flight waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Awaiting {
    Puback,
    Pubrec,
    Pubcomp,
}

#[derive(Clone, Copy)]
struct Entry {
    awaiting: Option<Awaiting>,
    sent_ns: u64,
}

/// Identifiers 1..=limit, lent in turn.
#[derive(Default)]
pub struct PacketIds {
    entries: Vec<Entry>,
    free: VecDeque<u16>,
    limit: u16,
}

impl PacketIds {
    /// At most `limit` identifiers are lent at a time.
    pub fn new(limit: u16) -> PacketIds {
        PacketIds { entries: Vec::new(), free: VecDeque::new(), limit }
    }

    pub fn in_flight(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    #[inline]
    pub fn available(&self) -> bool {
        !self.free.is_empty() || self.entries.len() < usize::from(self.limit)
    }

    /// Lends an identifier; `None` if all are in use.
    #[inline]
    pub fn lend(&mut self, awaiting: Awaiting, now_ns: u64) -> Option<u16> {
        let entry = Entry { awaiting: Some(awaiting), sent_ns: now_ns };
        if self.entries.len() < usize::from(self.limit) {
            self.entries.push(entry);
            return Some(self.entries.len() as u16);
        }
        let id = self.free.pop_front()?;
        self.entries[usize::from(id) - 1] = entry;
        Some(id)
    }

    fn entry(&mut self, id: u16) -> Option<&mut Entry> {
        self.entries.get_mut(usize::from(id).checked_sub(1)?)
    }

    /// PUBREC arrived: PUBCOMP comes next. Whether a message waited for it.
    pub fn received(&mut self, id: u16) -> bool {
        match self.entry(id) {
            Some(entry) if matches!(entry.awaiting, Some(Awaiting::Pubrec | Awaiting::Pubcomp)) => {
                entry.awaiting = Some(Awaiting::Pubcomp);
                true
            }
            _ => false,
        }
    }

    /// The last acknowledgement arrived: when the message was sent, if one waited for this.
    #[inline]
    pub fn done(&mut self, id: u16, what: Awaiting) -> Option<u64> {
        let entry = self.entry(id).filter(|entry| entry.awaiting == Some(what))?;
        entry.awaiting = None;
        let sent_ns = entry.sent_ns;
        self.free.push_back(id);
        Some(sent_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unique_while_lent_and_come_back_in_turn() {
        let mut ids = PacketIds::new(3);
        let lent: Vec<_> = (0..4).map(|i| ids.lend(Awaiting::Puback, i)).collect();
        assert_eq!(lent, [Some(1), Some(2), Some(3), None]);
        assert!(!ids.available());
        assert_eq!(ids.done(2, Awaiting::Puback), Some(1));
        assert_eq!(ids.done(2, Awaiting::Puback), None, "acknowledged twice");
        assert_eq!(ids.done(9, Awaiting::Puback), None);
        assert_eq!(ids.done(0, Awaiting::Puback), None);
        assert_eq!(ids.in_flight(), 2);
        assert_eq!(ids.lend(Awaiting::Pubrec, 9), Some(2));
        assert_eq!(ids.done(2, Awaiting::Pubcomp), None, "PUBCOMP before PUBREC");
        assert!(ids.received(2) && ids.received(2) && !ids.received(1));
        assert_eq!(ids.done(2, Awaiting::Pubcomp), Some(9));
    }
}
