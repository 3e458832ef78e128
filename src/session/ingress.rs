//! What a client publishes: Packet Identifiers of QoS 2 until PUBREL, and the receive quota of the connection.

use super::{Ingress, Link, Session};
use crate::wire::{Qos, Reason};

impl Session {
    /// A PUBLISH came, and its topic is resolved. After `Route` the caller ends with
    /// [`Session::acknowledge_publish`] or [`Session::refuse_publish`].
    ///
    /// An identifier that waits for PUBREL does not stand in the way of QoS 1: its PUBLISH is a new message in any case.
    /// // [MQTT-4.3.2-5]
    /// The client's Packet Identifiers have nothing to do with ours. // [U5-2.2.1-1] [U5-2.2.1-3]
    #[inline]
    pub fn handle_publish(&mut self, link: &mut Link, qos: Qos, packet_id: u16) -> Ingress {
        let state = match qos {
            Qos::AtMostOnce => return Ingress::Route,
            Qos::AtLeastOnce => Received::No,
            Qos::ExactlyOnce => self.received.state(packet_id),
        };
        if state != Received::Counted && !link.take_receive_quota() {
            return Ingress::ReceiveMaximumExceeded;
        }
        if qos == Qos::ExactlyOnce {
            self.received.insert(packet_id);
        }
        match state {
            Received::No => Ingress::Route,
            Received::Earlier | Received::Counted => Ingress::Repeat, // [MQTT-4.3.3-10]
        }
    }

    /// Whether a PUBLISH that repeats one that was routed, but for Packet Identifier and payload,
    /// joins its batch: it is a new message, and there is quota for it. If not, nothing has
    /// changed.
    ///
    /// At QoS 1 all of a batch have the place of the first in the quota: they are acknowledged
    /// together, each before the next one by right.
    #[inline]
    pub fn handle_following(&mut self, link: &mut Link, qos: Qos, packet_id: u16) -> bool {
        if qos != Qos::ExactlyOnce {
            return true;
        }
        let joins = self.received.state(packet_id) == Received::No && link.take_receive_quota();
        if joins {
            self.received.insert(packet_id);
        }
        joins
    }

    /// PUBACK or PUBREC was answered. At QoS 2 the quota comes back with PUBCOMP. // [MQTT-4.3.2-4] [MQTT-4.3.3-8]
    pub fn acknowledge_publish(link: &mut Link, qos: Qos) {
        if qos == Qos::AtLeastOnce {
            link.give_receive_quota();
        }
    }

    /// PUBACK or PUBREC with an error code was answered: the identifier is free. // [MQTT-4.3.3-9]
    pub fn refuse_publish(&mut self, link: &mut Link, qos: Qos, packet_id: u16) {
        match qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => link.give_receive_quota(),
            Qos::ExactlyOnce => {
                if self.received.remove(packet_id) == Received::Counted {
                    link.give_receive_quota();
                }
            }
        }
    }

    /// The code for PUBCOMP. // [MQTT-4.3.3-11] [MQTT-4.3.3-12] [U5-4.3-1]
    pub fn handle_pubrel(&mut self, link: &mut Link, packet_id: u16) -> Reason {
        match self.received.remove(packet_id) {
            Received::No => Reason::PACKET_IDENTIFIER_NOT_FOUND,
            Received::Earlier => Reason::SUCCESS,
            Received::Counted => {
                link.give_receive_quota();
                Reason::SUCCESS
            }
        }
    }

    /// Their Packet Identifiers.
    pub fn received(&self) -> impl Iterator<Item = u16> + '_ {
        self.received.iter()
    }

    /// A message that a former process took, and whose PUBREL has not come.
    pub fn restore_received(&mut self, packet_id: u16) {
        self.received.insert(packet_id);
    }

    /// QoS 2 messages of the client that wait for PUBREL.
    pub fn received_len(&self) -> usize {
        self.received.len()
    }
}

/// What is known of a Packet Identifier of the client.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    No,
    /// On an earlier connection; does not count against this one's quota.
    Earlier,
    /// On this connection.
    Counted,
}

/// Packet Identifiers of received QoS 2 messages: 256 pages of 256 bits, those that hold any, in order. Clients count
/// upwards, so there are one or two.
///
/// Behind a pointer, since most clients publish nothing at QoS 2.
#[derive(Debug, Default)]
pub(super) struct PacketIds(Option<Box<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    pages: Vec<Page>,
}

#[derive(Debug)]
struct Page {
    /// The upper byte of its identifiers.
    number: u8,
    stored: [u64; 4],
    counted: [u64; 4],
}

impl Page {
    fn state(&self, word: usize, bit: u64) -> Received {
        if self.counted[word] & bit != 0 {
            Received::Counted
        } else if self.stored[word] & bit != 0 {
            Received::Earlier
        } else {
            Received::No
        }
    }
}

impl PacketIds {
    fn len(&self) -> usize {
        self.pages().iter().flat_map(|page| page.stored).map(|word| word.count_ones() as usize).sum()
    }

    fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let words = |page: &Page| {
            let number = u16::from(page.number) << 8;
            page.stored.into_iter().zip((0..).step_by(64)).map(move |(word, bit)| (word, number | bit))
        };
        self.pages().iter().flat_map(words).flat_map(|(word, first)| {
            (0..u64::BITS as u16).filter(move |bit| word >> bit & 1 != 0).map(move |bit| first | bit)
        })
    }

    fn state(&self, packet_id: u16) -> Received {
        let (number, word, bit) = place(packet_id);
        let pages = self.pages();
        find(pages, number).map_or(Received::No, |at| pages[at].state(word, bit))
    }

    /// Stores it, counted.
    fn insert(&mut self, packet_id: u16) {
        let (number, word, bit) = place(packet_id);
        let pages = &mut self.0.get_or_insert_default().pages;
        let at = find(pages, number).unwrap_or_else(|at| {
            pages.insert(at, Page { number, stored: [0; 4], counted: [0; 4] });
            at
        });
        pages[at].stored[word] |= bit;
        pages[at].counted[word] |= bit;
    }

    /// What it was.
    fn remove(&mut self, packet_id: u16) -> Received {
        let (number, word, bit) = place(packet_id);
        let Some(owned) = &mut self.0 else { return Received::No };
        let Ok(at) = find(&owned.pages, number) else { return Received::No };
        let page = &mut owned.pages[at];
        let state = page.state(word, bit);
        page.stored[word] &= !bit;
        page.counted[word] &= !bit;
        if page.stored == [0; 4] {
            owned.pages.remove(at);
        }
        if owned.pages.is_empty() {
            self.0 = None;
        }
        state
    }

    /// The next connection counts anew.
    pub(super) fn forget_connection(&mut self) {
        for page in self.0.iter_mut().flat_map(|owned| &mut owned.pages) {
            page.counted = [0; 4];
        }
    }

    fn pages(&self) -> &[Page] {
        self.0.as_ref().map_or(&[], |owned| &owned.pages)
    }
}

fn find(pages: &[Page], number: u8) -> Result<usize, usize> {
    pages.binary_search_by_key(&number, |page| page.number)
}

/// Page, word and bit of an identifier.
fn place(packet_id: u16) -> (u8, usize, u64) {
    ((packet_id >> 8) as u8, usize::from(packet_id >> 6 & 3), 1 << (packet_id & 63))
}
