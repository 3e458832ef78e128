//! A second reader of the log, for tests: whether the records in their order give what is in memory.
//!
//! It applies what was appended before each commit is sealed. At the end of a turn its state must be what a start would find
//! if everything that was appended reached the disk.

use std::collections::BTreeMap;

use crate::clock::{Millis, NEVER};
use crate::io::Io;
use crate::memory::Message;
use crate::session::Place;
use crate::store::{Delivery, Log, SessionImage, State, StoredWill, WallClock};
use crate::topic::Router;

use super::keep::{Keep, is_stored, options_to_byte};
use super::slots::Slot;
use super::{Core, Shard};

/// What the log says, as far as it was read.
#[derive(Debug)]
pub(super) struct Mirror {
    state: State,
    /// [`Log::appended`] when it was read last.
    read: u64,
    /// A record that does not fit to those before it.
    is_damaged: bool,
}

impl Mirror {
    pub fn new(clock: WallClock) -> Mirror {
        Mirror { state: State::new(clock), read: 0, is_damaged: false }
    }

    fn follow(&mut self, log: &Log) {
        self.is_damaged |= self.state.apply_all(log.appended_since(self.read)).is_err();
        self.read = log.appended();
    }
}

impl Keep {
    /// Reads what was appended; before a commit is sealed.
    pub fn follow(&mut self) {
        if let Some(mirror) = &mut self.mirror {
            mirror.follow(&self.log);
        }
    }
}

impl<I: Io> Shard<I> {
    /// From now on the log is read beside what is in memory, for [`Shard::differs_from_log`]. Before the first turn.
    pub fn mirror_log(&mut self) {
        if let Some(keep) = &mut self.core.local.env.keep {
            keep.mirror = Some(Mirror::new(keep.clock));
        }
    }

    /// Where memory and the log differ, if they do. Between turns; nothing until the first walk is complete.
    pub fn differs_from_log(&mut self) -> Option<String> {
        let keep = self.core.local.env.keep.as_mut()?;
        keep.follow();
        let clock = keep.clock;
        let mirror = self.core.local.env.keep.as_ref()?.mirror.as_ref()?;
        if mirror.is_damaged {
            return Some("a record does not fit to those before it".to_owned());
        }
        if !mirror.state.is_complete() {
            return None;
        }
        self.core.differs_from(&mirror.state, clock)
    }
}

impl Core {
    fn differs_from(&self, state: &State, clock: WallClock) -> Option<String> {
        let keep = self.local.env.keep.as_ref()?;
        let given = |(number, group, message): (u64, u64, &Message)| (number, group, text(message));
        let kept: Vec<_> = keep.custody.iter().map(given).collect();
        let logged: Vec<_> = state.given().map(given).collect();
        if kept != logged {
            return Some(format!("in custody are {kept:#?}\nbut the log says {logged:#?}"));
        }
        let sessions = &self.local.sessions;
        for index in 0..state.places().max(sessions.arena.end()) {
            let slot = sessions.arena.at(index).map(|(_, slot)| slot).filter(|slot| slot.is_kept);
            let kept = slot.map(|slot| self.in_memory(index, slot, clock));
            let logged = state.session(index).map(|image| in_log(image, slot));
            if kept != logged {
                return Some(format!("session {index} is {kept:#?}\nbut the log says {logged:#?}"));
            }
        }
        let now = self.local.env.now;
        let live = |message: &&Message| message.expires_at() > now && is_stored(message.topic());
        let store = &self.retained.store;
        let kept = retained((0..store.places()).filter_map(|place| store.at(place)).filter(live));
        let logged = retained(state.retained().filter(live));
        (kept != logged).then(|| format!("retained are {kept:#?}\nbut the log says {logged:#?}"))
    }
}

/// A session in words; what both sides know.
#[derive(Debug, PartialEq)]
struct Words {
    who: (String, Option<String>, bool),
    /// While the client is connected, its expiry; else when the session ends.
    end: Result<u32, u64>,
    will: Option<StoredWill>,
    filters: BTreeMap<String, (u8, u32)>,
    received: Vec<u16>,
    flying: Vec<(u16, Waits)>,
    released: Vec<u16>,
    queue: Vec<Waits>,
    behind: Vec<Waits>,
}

/// A message that waits, in words.
#[derive(Debug, Default)]
struct Waits {
    what: String,
    /// The shared subscription that it is for. Memory forgets which one it was when that ends.
    share: String,
}

impl PartialEq for Waits {
    fn eq(&self, other: &Waits) -> bool {
        let forgotten = self.share.is_empty() || other.share.is_empty();
        self.what == other.what && (forgotten || self.share == other.share)
    }
}

impl Core {
    /// What is written down of a session that is in memory.
    fn in_memory(&self, index: u32, slot: &Slot, clock: WallClock) -> Words {
        let mut words = in_memory(slot, &self.local.sessions.router, clock);
        if let Some(keep) = &self.local.env.keep {
            words.received.retain(|packet_id| !keep.unreceived.contains(&(index, *packet_id)));
        }
        words
    }
}

fn in_memory(slot: &Slot, router: &Router, clock: WallClock) -> Words {
    let mut filters = BTreeMap::new();
    for key in slot.subscriptions.iter() {
        if let (Some(text), Some(one)) = (router.filter_text(key), router.subscription(key)) {
            filters.insert(text.to_owned(), (options_to_byte(one.options), one.identifier));
        }
    }
    let mut words = Words {
        who: (slot.client_id.to_string(), slot.user.as_deref().map(str::to_owned), slot.by_certificate),
        end: match slot.connection {
            Some(_) => Ok(slot.expiry_s),
            None => Err(clock.wall(slot.ends_at)),
        },
        will: slot.will.as_deref().map(|will| StoredWill::from(&will.words(clock))),
        filters,
        received: slot.session.received().collect(),
        flying: Vec::new(),
        released: Vec::new(),
        queue: Vec::new(),
        behind: Vec::new(),
    };
    slot.session.visit_kept(|place, kept| {
        let waits = kept
            .map(|kept| {
                let share = kept.share.and_then(|key| router.filter_text(key)).unwrap_or_default();
                delivery(kept.message, (kept.qos as u8, kept.retain as u8), kept.identifiers, share)
            })
            .unwrap_or_default();
        match place {
            Place::Flying { packet_id } => words.flying.push((packet_id, waits)),
            Place::Released { packet_id } => words.released.push(packet_id),
            Place::Queued => words.queue.push(waits),
        }
    });
    for kept in slot.cursors.iter().flat_map(|cursors| cursors.behind.written()) {
        let form = (kept.qos as u8, kept.retain as u8);
        words.behind.push(delivery(kept.message, form, kept.identifiers, ""));
    }
    words
}

fn in_log(image: &SessionImage, slot: Option<&Slot>) -> Words {
    let text =
        |one: &Delivery| delivery(&one.message, (one.qos as u8, one.retain), &one.identifiers, &one.share);
    let filters = image.filters().iter().map(|one| (one.filter.to_string(), (one.options, one.identifier)));
    Words {
        who: (
            image.client_id.to_string(),
            image.user.as_deref().map(str::to_owned),
            // A later connection of the same session may show a certificate; it is written with the next image.
            image.by_certificate || slot.is_some_and(|slot| slot.by_certificate),
        ),
        end: image.ends_at.map_or(Ok(image.expiry_s), Err),
        will: image.will.as_deref().cloned(),
        filters: filters.collect(),
        received: image.received.iter().copied().collect(),
        flying: image.flying.iter().map(|(packet_id, one)| (*packet_id, text(one))).collect(),
        released: image.released.iter().copied().collect(),
        queue: image.queue.iter().map(text).collect(),
        behind: image.behind.iter().map(text).collect(),
    }
}

fn delivery(message: &Message, (qos, retain): (u8, u8), identifiers: &[u32], share: &str) -> Waits {
    let what = format!("{} at {qos}, retain {retain}, {identifiers:?}", text(message));
    Waits { what, share: share.to_owned() }
}

fn text(message: &Message) -> String {
    let view = message.view();
    let expires: Option<Millis> = Some(view.expires_at).filter(|at| *at != NEVER);
    format!(
        "{} q{} {} of {:016x} {:?} {:?} until {expires:?}",
        view.topic,
        view.qos as u8,
        view.retain,
        view.publisher,
        view.properties,
        String::from_utf8_lossy(view.payload)
    )
}

fn retained<'a>(messages: impl Iterator<Item = &'a Message>) -> BTreeMap<String, String> {
    messages.map(|message| (message.topic().to_owned(), text(message))).collect()
}
