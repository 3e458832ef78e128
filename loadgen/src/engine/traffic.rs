//! The messages of one worker: what its publishers may send, and what became of each at its subscribers.
//!
//! Knows no socket. A publisher that may send again stands in `ready` once; the worker serves that list each turn.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::conn::{Conn, Phase};
use super::control::Control;
use super::ids::{Awaiting, PacketIds};
use super::meter::Meter;
use super::plan;
use crate::check::{Arrival, Track};
use crate::payload::Payloads;
use crate::schedule::Pacer;
use crate::spec::{Focus, Load, Pattern, Spec};
use crate::wire::encode;

/// A publisher stops adding messages to a connection with this many bytes not yet handed to the kernel.
const OUT_BYTES_MAX: usize = 256 * 1024;
/// Due times that a worker keeps for publishers that cannot send. Beyond this, messages that are due count as unsent.
const BACKLOG_MAX: usize = 4_000_000;

/// One publisher.
pub struct Publisher {
    pub number: u32,
    pub conn: u32,
    next_topic: u32,
    /// Topic Aliases that the broker takes, and how many of them it knows already.
    aliases: u16,
    aliases_set: u16,
    sent: u64,
    /// Copies that receivers have returned, or that were written off.
    credited: u64,
    queued: bool,
    /// Wants to send and cannot, since the kernel or the broker holds it back.
    blocked: bool,
    backlog: VecDeque<u64>,
    /// When it was last able to send again.
    free_since_ns: u64,
    pub ids: PacketIds,
}

/// One subscriber: the streams it receives, and its tracks.
struct Subscription {
    first_stream: u32,
    streams: u32,
    first_track: usize,
}

/// What is known of an arrival beside topic and payload.
pub struct Arrived {
    pub now_ns: u64,
    /// Marked DUP on a resumed session.
    pub repeat: bool,
    /// Latency counts from here instead of from the due time.
    pub since_ns: Option<u64>,
}

/// The publisher behind a track.
struct Source {
    publisher: u32,
    stream: u32,
    /// Its number on this worker, if it lives here.
    local: Option<u32>,
    /// A client that waits for each message would have sent its next at this time.
    sample_after_ns: u64,
}

/// See the top of the file.
pub struct Traffic<'a> {
    spec: &'a Spec,
    control: &'a Control,
    worker: u32,
    payloads: Payloads,
    pub meter: Meter,
    pub publishers: Vec<Publisher>,
    /// Next sequence of each stream of this worker's publishers.
    sequences: Vec<u64>,
    topics: Vec<Box<[u8]>>,
    /// What stands before their payloads, where all payloads have one length.
    heads: Vec<encode::Head>,
    /// Topic Names that must arrive: one for each track in `Pairs`, one for each stream otherwise.
    names: Vec<Box<[u8]>>,
    /// First track of each share group that lives here.
    groups: Vec<(u32, usize)>,
    subscriptions: Vec<Subscription>,
    tracks: Vec<Track>,
    sources: Vec<Source>,
    ready: Vec<u32>,
    /// Copies that go back to publishers on other workers at the end of the turn.
    remote: Vec<(u32, u64)>,
    backlog_len: usize,
    copies: u64,
    /// Publishers send no more.
    stopped: bool,
    progress: u64,
}

/// What a message of this run says beside its payload.
fn head<'t>(spec: &Spec, topic: encode::Topic<'t>, packet_id: u16) -> encode::Publish<'t> {
    encode::Publish { version: spec.version, qos: spec.qos, retain: spec.retain, topic, packet_id }
}

impl<'a> Traffic<'a> {
    pub fn new(spec: &'a Spec, control: &'a Control, worker: u32) -> Traffic<'a> {
        Traffic {
            spec,
            control,
            worker,
            payloads: Payloads::new(spec.run_tag, spec.seed, spec.sizes.clone(), spec.checked),
            meter: Meter::new(worker),
            publishers: Vec::new(),
            sequences: Vec::new(),
            topics: Vec::new(),
            heads: Vec::new(),
            names: Vec::new(),
            groups: Vec::new(),
            subscriptions: Vec::new(),
            tracks: Vec::new(),
            sources: Vec::new(),
            ready: Vec::new(),
            remote: Vec::new(),
            backlog_len: 0,
            copies: u64::from(spec.copies()),
            stopped: false,
            progress: 0,
        }
    }

    /// Adds a publisher whose connection has this slot; its number on this worker.
    pub fn add_publisher(&mut self, number: u32, conn: u32) -> u32 {
        let topics = self.spec.topics_per_publisher;
        for n in 0..topics {
            self.sequences.push(0);
            let name: Box<[u8]> = self.spec.template.name(number, n).into_bytes().into();
            if let Some(len) = self.payloads.fixed_len() {
                self.heads.push(encode::Head::new(&head(self.spec, encode::Topic::Name(&name), 0), len));
            }
            self.topics.push(name);
        }
        self.publishers.push(Publisher {
            number,
            conn,
            next_topic: 0,
            aliases: 0,
            aliases_set: 0,
            sent: 0,
            credited: 0,
            queued: false,
            blocked: false,
            backlog: VecDeque::new(),
            free_since_ns: 0,
            ids: PacketIds::default(),
        });
        self.publishers.len() as u32 - 1
    }

    /// A publisher is connected: what the broker allows it.
    pub fn connected(&mut self, local: u32, in_flight_max: u16, aliases: u16) {
        let publisher = &mut self.publishers[local as usize];
        publisher.ids = PacketIds::new(in_flight_max);
        (publisher.aliases, publisher.aliases_set) = (aliases, 0);
    }

    /// Adds a subscriber; its number on this worker. Members of a share group share their tracks, slow ones have none.
    pub fn add_subscriber(&mut self, number: u32) -> u32 {
        let (first_stream, streams) = plan::streams_of(self.spec, number);
        let group = plan::group_of(self.spec, number);
        let known = group.and_then(|group| self.groups.iter().find(|(g, _)| *g == group));
        let first_track = known.map_or(self.tracks.len(), |(_, track)| *track);
        if known.is_none() && !self.spec.is_slow(number) {
            self.add_tracks(first_stream, streams);
            self.groups.extend(group.map(|group| (group, first_track)));
        }
        self.subscriptions.push(Subscription { first_stream, streams, first_track });
        self.subscriptions.len() as u32 - 1
    }

    fn add_tracks(&mut self, first_stream: u32, streams: u32) {
        let topics = self.spec.topics_per_publisher;
        let named = self.spec.pattern == Pattern::Pairs || self.names.is_empty();
        for stream in first_stream..first_stream + streams {
            let publisher = stream / topics;
            let (home, local) = plan::publisher_home(self.spec, publisher);
            let local = Some(local).filter(|_| home == self.worker);
            self.tracks.push(Track::default());
            self.sources.push(Source { publisher, stream, local, sample_after_ns: 0 });
            if named {
                self.names.push(self.spec.template.name(publisher, stream % topics).into_bytes().into());
            }
        }
    }

    /// Copies that this worker's receivers should get in all, once every stream's count is known.
    pub fn expected(&self) -> u64 {
        let sent = |source: &Source| self.control.sent[source.stream as usize].load(Ordering::Acquire);
        self.sources.iter().map(sent).sum()
    }

    /// Announces how many messages each stream of this worker has sent.
    pub fn publish_counts(&self) {
        let topics = self.spec.topics_per_publisher;
        for (i, &count) in self.sequences.iter().enumerate() {
            let publisher = &self.publishers[i / topics as usize];
            let stream = publisher.number * topics + i as u32 % topics;
            self.control.sent[stream as usize].store(count, Ordering::Release);
        }
    }

    /// Grows whenever a copy arrives, a message is acknowledged, or the kernel takes bytes of a publisher.
    pub fn progress(&self) -> u64 {
        self.progress
    }

    /// Whether publishers wait for acknowledgements or for room to send.
    pub fn unfinished(&self) -> bool {
        self.backlog_len > 0 || self.publishers.iter().any(|p| p.ids.in_flight() > 0)
    }

    /// No publisher starts another message; backlogs still drain.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Gives up what could not be sent.
    pub fn abandon_backlog(&mut self) {
        self.meter.totals.unsent += self.backlog_len as u64;
        self.backlog_len = 0;
        self.publishers.iter_mut().for_each(|p| p.backlog.clear());
    }

    // ---- receiving ----

    /// A copy of a message reached a subscriber of this worker.
    #[inline]
    pub fn handle_message(&mut self, subscriber: u32, arrived: &Arrived, topic: &[u8], payload: &[u8]) {
        let now_ns = arrived.now_ns;
        self.progress += 1;
        let subscription = &self.subscriptions[subscriber as usize];
        if !self.spec.checked {
            self.meter.totals.unique_all += 1;
            self.meter.delivered_unchecked(now_ns, payload.len());
            // Without a header only a pair knows whose message it is.
            if self.spec.pattern == Pattern::Pairs {
                self.credit(subscription.first_track, 1);
            }
            return;
        }
        let Some(header) = self.payloads.header(payload) else {
            self.meter.totals.faults.corrupted += 1;
            return;
        };
        let offset = header.stream.wrapping_sub(subscription.first_stream);
        if offset >= subscription.streams {
            self.meter.totals.faults.stray += 1;
            return;
        }
        let track = subscription.first_track + offset as usize;
        let name = match self.spec.pattern {
            Pattern::Pairs => &self.names[track],
            _ => &self.names[header.stream as usize],
        };
        let intact = self.payloads.intact(payload, &header) && **name == *topic;
        if !intact {
            self.meter.totals.faults.corrupted += 1;
            if !self.tracks[track].plausible(header.sequence) {
                return;
            }
        }
        let ordered = !matches!(self.spec.pattern, Pattern::Shared { .. });
        let faults = &mut self.meter.totals.faults;
        match self.tracks[track].arrive(header.sequence) {
            Arrival::Next => self.credit(track, 1),
            Arrival::Ahead { missed } => {
                faults.lost += missed;
                // What an ordered stream has skipped will hardly come; the window must not shrink by it.
                self.credit(track, if ordered { missed + 1 } else { 1 });
            }
            Arrival::Late => {
                faults.lost -= 1;
                if ordered {
                    faults.disordered += 1;
                } else {
                    self.credit(track, 1);
                }
            }
            Arrival::Again => {
                if arrived.repeat {
                    self.meter.totals.redelivered += 1;
                } else {
                    faults.duplicated += 1;
                }
                return;
            }
        }
        self.meter.totals.unique_all += 1;
        if intact {
            let source = &mut self.sources[track];
            let due_ns = arrived.since_ns.unwrap_or(header.due_ns);
            let sampled = due_ns >= source.sample_after_ns;
            if sampled {
                source.sample_after_ns = now_ns;
            }
            self.meter.delivered(now_ns, due_ns, payload.len(), sampled);
        }
    }

    /// Returns copies to the publisher behind a track.
    #[inline]
    fn credit(&mut self, track: usize, copies: u64) {
        if !matches!(self.spec.load, Load::Closed { .. }) {
            return;
        }
        let source = &self.sources[track];
        match source.local {
            Some(local) => self.credit_local(local, copies),
            None => match self.remote.last_mut() {
                Some((publisher, n)) if *publisher == source.publisher => *n += copies,
                _ => self.remote.push((source.publisher, copies)),
            },
        }
    }

    #[inline]
    pub fn credit_local(&mut self, local: u32, copies: u64) {
        let publisher = &mut self.publishers[local as usize];
        publisher.credited += copies;
        if !publisher.queued {
            publisher.queued = true;
            self.ready.push(local);
        }
    }

    /// Copies to return to publishers of other workers.
    pub fn take_remote(&mut self) -> std::vec::Drain<'_, (u32, u64)> {
        self.remote.drain(..)
    }

    /// Takes what other workers have returned.
    pub fn collect_credits(&mut self) {
        for local in 0..self.publishers.len() {
            let number = self.publishers[local].number as usize;
            let copies = self.control.credits[number].swap(0, Ordering::AcqRel);
            if copies > 0 {
                self.credit_local(local as u32, copies);
            }
        }
    }

    /// The last acknowledgement of a message of this publisher arrived.
    #[inline]
    pub fn handle_acked(&mut self, local: u32, packet_id: u16, what: Awaiting, now_ns: u64) {
        let publisher = &mut self.publishers[local as usize];
        if let Some(sent_ns) = publisher.ids.done(packet_id, what) {
            self.meter.acked(sent_ns, now_ns);
            self.unblock(local, now_ns);
        }
    }

    /// The kernel or the broker may take more from this publisher now.
    #[inline]
    pub fn unblock(&mut self, local: u32, now_ns: u64) {
        self.progress += 1;
        let publisher = &mut self.publishers[local as usize];
        if publisher.blocked {
            publisher.blocked = false;
            publisher.free_since_ns = now_ns;
            if !publisher.queued {
                publisher.queued = true;
                self.ready.push(local);
            }
        }
    }

    /// Closed loop: everything outstanding for too long is written off, so that publishers go on.
    pub fn forgive(&mut self) {
        for local in 0..self.publishers.len() {
            let publisher = &self.publishers[local];
            let outstanding = (publisher.sent * self.copies).saturating_sub(publisher.credited);
            if outstanding > 0 {
                self.meter.totals.forgiven += outstanding;
                self.credit_local(local as u32, outstanding);
            }
        }
    }

    // ---- sending ----

    /// Every stream of this worker is due once, now.
    pub fn queue_each_stream_once(&mut self, now_ns: u64) {
        for local in 0..self.publishers.len() {
            let topics = self.spec.topics_per_publisher as usize;
            self.publishers[local].backlog.extend(std::iter::repeat_n(now_ns, topics));
            self.backlog_len += topics;
            self.meter.offered(now_ns, topics as u64);
            self.credit_local(local as u32, 0);
        }
    }

    /// Appends messages that remove what this publisher's topics retain.
    pub fn remove_retained(&self, local: u32, out: &mut Vec<u8>) {
        let topics = self.spec.topics_per_publisher;
        for name in &self.topics[(local * topics) as usize..((local + 1) * topics) as usize] {
            let topic = encode::Topic::Name(name);
            let head =
                encode::Publish { version: self.spec.version, qos: 0, retain: true, topic, packet_id: 0 };
            encode::publish(out, &head, 0);
        }
    }

    /// Puts every publisher into the list of those that may send.
    pub fn begin(&mut self) {
        for local in 0..self.publishers.len() {
            self.credit_local(local as u32, 0);
        }
    }

    /// Publishers that may send again, each once.
    pub fn take_ready(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.ready)
    }

    /// Gives the list back for reuse.
    pub fn give_back_ready(&mut self, mut list: Vec<u32>) {
        list.clear();
        if self.ready.is_empty() {
            self.ready = list;
        }
    }

    /// Serves one publisher of the ready list: its backlog, or as much as its window lets out.
    pub fn serve(&mut self, local: u32, conn: &mut Conn, now_ns: u64) {
        self.publishers[local as usize].queued = false;
        while let Some(&due_ns) = self.publishers[local as usize].backlog.front() {
            if !self.may_send(local, conn) {
                return;
            }
            self.publishers[local as usize].backlog.pop_front();
            self.backlog_len -= 1;
            self.publish(local, conn, due_ns, now_ns);
        }
        let Load::Closed { window } = self.spec.load else { return };
        if self.stopped || self.spec.focus == Focus::Retained {
            return;
        }
        let mut room = self.room(local, window);
        while room > 0 && self.may_send(local, conn) {
            self.meter.offered(now_ns, 1);
            self.publish(local, conn, now_ns, now_ns);
            room -= 1;
        }
    }

    /// Messages that the window lets out.
    fn room(&self, local: u32, window: u32) -> u64 {
        let publisher = &self.publishers[local as usize];
        let outstanding = match self.copies {
            0 | 1 => publisher.sent.saturating_sub(publisher.credited),
            copies => (publisher.sent * copies).saturating_sub(publisher.credited).div_ceil(copies),
        };
        u64::from(window).saturating_sub(outstanding)
    }

    fn may_send(&mut self, local: u32, conn: &Conn) -> bool {
        let publisher = &mut self.publishers[local as usize];
        let free = conn.phase == Phase::Up
            && conn.out.len() < OUT_BYTES_MAX
            && (self.spec.qos == 0 || publisher.ids.available());
        publisher.blocked |= !free;
        free
    }

    /// Open loop: a message of this publisher is due.
    #[inline]
    pub fn offer(&mut self, local: u32, conn: &mut Conn, due_ns: u64, now_ns: u64) {
        self.meter.offered(due_ns, 1);
        if self.publishers[local as usize].backlog.is_empty() && self.may_send(local, conn) {
            let free_since_ns = self.publishers[local as usize].free_since_ns;
            self.meter.late(due_ns, now_ns.saturating_sub(due_ns.max(free_since_ns)));
            self.publish(local, conn, due_ns, now_ns);
        } else if self.backlog_len < BACKLOG_MAX {
            self.publishers[local as usize].backlog.push_back(due_ns);
            self.backlog_len += 1;
        } else {
            self.meter.totals.unsent += 1;
        }
    }

    /// The generator did not get to these messages: they were due, and count as unsent.
    pub fn give_up(&mut self, mut pacer: Pacer, start_ns: u64, end_ns: u64) {
        while let Some(due_ns) = pacer.due_ns().map(|due| start_ns + due).filter(|&due| due < end_ns) {
            pacer.take();
            self.meter.offered(due_ns, 1);
            self.meter.totals.unsent += 1;
        }
    }

    /// Appends one message to the connection's bytes.
    #[inline]
    fn publish(&mut self, local: u32, conn: &mut Conn, due_ns: u64, now_ns: u64) {
        let spec = self.spec;
        let publisher = &mut self.publishers[local as usize];
        let n = publisher.next_topic;
        publisher.next_topic = if n + 1 == spec.topics_per_publisher { 0 } else { n + 1 };
        publisher.sent += 1;
        let index = (local * spec.topics_per_publisher + n) as usize;
        let stream = publisher.number * spec.topics_per_publisher + n;
        let packet_id = match spec.qos {
            0 => Some(0),
            1 => publisher.ids.lend(Awaiting::Puback, now_ns),
            _ => publisher.ids.lend(Awaiting::Pubrec, now_ns),
        };
        let packet_id = packet_id.expect("may_send saw a free identifier");
        let sequence = self.sequences[index];
        self.sequences[index] += 1;
        let name = &self.topics[index];
        let topic = if n >= u32::from(publisher.aliases) {
            encode::Topic::Name(name)
        } else if n < u32::from(publisher.aliases_set) {
            encode::Topic::Alias(n as u16 + 1)
        } else {
            // Topics take turns, so aliases are set in order.
            publisher.aliases_set = n as u16 + 1;
            encode::Topic::NameSetsAlias(name, n as u16 + 1)
        };
        match (topic, self.heads.get(index)) {
            (encode::Topic::Name(_), Some(head)) => head.append(&mut conn.out, packet_id),
            _ => {
                let len = self.payloads.len(stream, sequence);
                encode::publish(&mut conn.out, &head(spec, topic, packet_id), len);
            }
        }
        self.payloads.write(&mut conn.out, stream, sequence, due_ns);
        self.meter.sent(now_ns, 1);
    }

    /// Messages of this publisher that nobody has returned yet (swallow: those that the kernel has not taken).
    pub fn outstanding(&self, local: u32) -> u64 {
        let publisher = &self.publishers[local as usize];
        publisher.sent - publisher.credited.min(publisher.sent)
    }
}
