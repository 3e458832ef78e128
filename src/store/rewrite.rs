//! What was read from a log, as a new one: what a shard does at its start, without a shard.
//!
//! `ringmq store repair` needs it: where commits are missing between others, only a new log can have
//! everything that is intact and no gap.

use std::collections::HashSet;
use std::io;

use super::image::{Delivery, SessionImage};
use super::record::{Identifiers, Queued, Record, Will};
use super::run::Part;
use super::{Keeper, Log, Progress, WallClock, WallMillis};
use crate::clock::NEVER;
use crate::io::Files;
use crate::memory::{Message, MessageView};

/// With more bytes that wait a commit is written.
const COMMIT_BYTES: usize = 256 * 1024;

/// Writes the log of a shard that has what is to be kept and nothing else. `clock` is that of the state;
/// `prefix` is in the names of the files, which must be new.
///
/// # Errors
/// A segment cannot be made or written.
pub fn rewrite(
    files: &dyn Files,
    (keeper, prefix): (&Keeper, &str),
    Part { log, sessions, retained, given }: Part,
    clock: WallClock,
    wall: WallMillis,
) -> io::Result<()> {
    let mut writer = Writer { files, keeper, prefix, log, clock, wall, now: 0, named: HashSet::new() };
    writer.log.begin_walk();
    for (index, session) in sessions.iter().enumerate() {
        writer.session(index as u32, session); // a shard has fewer than 2^28
        writer.commit(COMMIT_BYTES)?;
    }
    for message in &retained {
        writer.message(message);
        writer.log.append(&Record::Retained);
        writer.commit(COMMIT_BYTES)?;
    }
    for (number, (group, message)) in given.iter().enumerate() {
        writer.message(message);
        writer.log.append(&Record::Given { number: number as u64, group: *group });
        writer.commit(COMMIT_BYTES)?;
    }
    writer.log.end_walk();
    writer.log.append(&Record::Stopped);
    writer.commit(0)
}

struct Writer<'a> {
    files: &'a dyn Files,
    keeper: &'a Keeper,
    prefix: &'a str,
    log: Log,
    clock: WallClock,
    wall: WallMillis,
    now: u64,
    /// Messages that are written, by identity: the state keeps them, so it stays theirs.
    named: HashSet<u64>,
}

impl Writer<'_> {
    /// Makes commits of what waits, if that is more than `bytes_max`.
    fn commit(&mut self, bytes_max: usize) -> io::Result<()> {
        while self.log.waiting_bytes() > bytes_max {
            self.keeper.fill(self.files, self.prefix)?;
            self.now += 1;
            let Some(write) = self.log.seal(self.now, self.wall, 0) else { continue };
            self.files.write_at(&write.file, write.at, &write.bytes)?;
            match self.log.written(write.bytes, Ok(())) {
                Progress::OnDisk => {}
                Progress::Again | Progress::Broken(_) => {
                    return Err(io::Error::other("a write that did not fail was taken for one that did"));
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, message: &Message) {
        let name = message.identity();
        if !self.named.insert(name) {
            return self.log.append(&Record::Again { name });
        }
        let view = message.view();
        let expires_at = self.clock.wall(view.expires_at);
        self.log.append(&Record::Message { name, message: MessageView { expires_at, ..view } });
    }

    fn delivery(&mut self, delivery: &Delivery, record: impl Fn(Queued<'_>) -> Record<'_>) {
        self.message(&delivery.message);
        let identifiers = Identifiers::Numbers(&delivery.identifiers);
        let (qos, retain, share) = (delivery.qos, delivery.retain, &*delivery.share);
        self.log.append(&record(Queued { qos, retain, share, identifiers }));
    }

    fn session(&mut self, index: u32, image: &SessionImage) {
        self.log.append(&Record::Began {
            index,
            packet_id_next: image.packet_id_next,
            client_id: &image.client_id,
            user: image.user.as_deref(),
            by_certificate: image.by_certificate,
        });
        self.log.append(&Record::Connected { index, expiry_s: image.expiry_s });
        if let Some(will) = &image.will {
            let will = Will {
                topic: &will.topic,
                properties: &will.properties,
                payload: &will.payload,
                qos: will.qos,
                retain: will.retain,
                delay_s: will.delay_s,
                expiry_s: will.expiry_s,
                due_at: will.due_at,
            };
            self.log.append(&Record::Will { index, will });
        }
        if let Some(ends_at) = image.ends_at {
            let will_at = image.will.as_ref().map_or(NEVER, |will| will.due_at);
            self.log.append(&Record::Left { index, ends_at, will_at });
        }
        for one in image.filters() {
            let (filter, options, identifier) = (&*one.filter, one.options, one.identifier);
            self.log.append(&Record::Subscribed { index, filter, options, identifier });
        }
        for &packet_id in &image.received {
            self.log.append(&Record::Received { index, packet_id });
        }
        for (packet_id, delivery) in &image.flying {
            let packet_id = *packet_id;
            self.delivery(delivery, |queued| Record::Flying { index, packet_id, queued });
        }
        for delivery in &image.queue {
            self.delivery(delivery, |queued| Record::Queued { index, queued });
        }
        for delivery in &image.behind {
            self.delivery(delivery, |queued| Record::Behind { index, queued });
        }
        for &packet_id in &image.released {
            self.log.append(&Record::Released { index, packet_id });
        }
        for &(publisher, packet_id) in &image.taken {
            self.log.append(&Record::Taken { index, publisher, packet_id });
        }
    }
}
