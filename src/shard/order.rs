//! Two rules of the order between shards, as values: code that breaks them does not compile. The values have no size.
//!
//! **Hear before you act.** A turn has one [`Intake`]. Whatever takes something in needs it alone: completions, parcels,
//! papers of the desk, a last read. [`Core::hear`] borrows it and gives [`Heard`], and whatever routes a message, publishes
//! one, or passes one on to another shard asks for that. While a `Heard` lives nothing more is taken in, and what was heard
//! before an intake is of no use after it.
//!
//! **All or none.** A PUBLISH is pushed to other shards with a [`Ticket`], one for all its next hops. [`Exchange::admit`]
//! gives one if all of them have room. What cannot wait for room says why: [`Owed`].

use std::collections::VecDeque;
use std::marker::PhantomData;

use crate::io::{Completion, Io, ReadNow, Socket};
use crate::memory::{Message, MessageView, ShardId, ShardSet};

use super::Core;
use super::desk::{Desk, Paper};
use super::env::Env;
use super::exchange::Exchange;
use super::parcel::{Found, HandOff, Parcel, Pass, Query, Released};
use super::waits::{Blocked, Wait};

/// What a turn takes in. `Shard::turn` makes one, and nobody else does.
#[derive(Debug)]
pub(super) struct Intake(());

/// The announcement logs of all other shards were read after everything that this turn has taken in so far.
#[derive(Copy, Clone, Debug)]
pub(super) struct Heard<'intake>(PhantomData<&'intake Intake>);

/// The publication that it was given for may be pushed: either each of its next hops has room, or it is [`Owed`].
#[derive(Debug)]
pub(super) struct Ticket<'intake>(Heard<'intake>);

/// The hints of a retained topic are set, by this shard.
#[must_use]
#[derive(Debug)]
pub(super) struct Hinted(());

/// The hints of a retained topic were set, and the announcement logs were read after that: its message may be stored.
#[derive(Debug)]
pub(super) struct MayStore(());

/// Why a publication does not wait for room. Its parcels wait in spills.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Owed {
    /// The last bytes of a connection that is taken over. Its successor waits for them; they are one read at most.
    LastRead,
    /// A will has nobody who could be paused. There is one for each session.
    Will,
    /// A number of `$SYS`, published by the broker itself. A turn has a fixed number of them.
    Sys,
    /// The owner of a topic passes on what a relay brought. An inbox waits for nobody, or two shards could wait for each
    /// other; the shards that send relays have a window.
    Relay,
    /// There is no other shard.
    Alone,
}

impl Intake {
    pub fn of_this_turn() -> Intake {
        Intake(())
    }

    pub fn completions<I: Io>(&mut self, io: &mut I, into: &mut Vec<Completion>) {
        io.completions(into);
    }

    /// Takes at most `max` parcels of another shard; returns how many.
    pub fn parcels(
        &mut self,
        exchange: &mut Exchange,
        from: ShardId,
        max: usize,
        into: &mut VecDeque<Parcel>,
    ) -> usize {
        exchange.links.read(from, max, into)
    }

    pub fn paper<L>(&mut self, desk: &mut Desk<L>, until: u32) -> Option<Paper<L>> {
        desk.take(until)
    }

    pub fn read_now<I: Io>(
        &mut self,
        io: &mut I,
        socket: &Socket,
        into: &mut Vec<u8>,
        max: usize,
    ) -> ReadNow {
        io.read_now(socket, into, max)
    }
}

impl<'intake> Ticket<'intake> {
    pub fn owed(_why: Owed, heard: Heard<'intake>) -> Ticket<'intake> {
        Ticket(heard)
    }

    pub fn heard(&self) -> Heard<'intake> {
        self.0
    }
}

impl Hinted {
    /// By `Retained::note`, which sets them.
    pub fn by_this_shard() -> Hinted {
        Hinted(())
    }
}

impl MayStore {
    /// A relay: its sender set the hints before it left, and it was taken in before the logs were read.
    pub fn what_was_relayed(_: Heard<'_>) -> MayStore {
        MayStore(())
    }
}

impl Exchange {
    /// Whether a publication may be pushed to all of `hops`; they are looked up only if some shard has no room.
    #[inline]
    pub fn admit<'intake>(
        &self,
        hops: impl FnOnce() -> ShardSet,
        heard: Heard<'intake>,
    ) -> Result<Ticket<'intake>, Blocked> {
        let full = self.links.full();
        if !full.is_empty() {
            let held = hops().intersection(full);
            if !held.is_empty() {
                return Err(Blocked::Shards(Wait::Room(held)));
            }
        }
        Ok(Ticket(heard))
    }

    /// The same of a message for the owner of its topic.
    pub fn admit_relay<'intake>(
        &self,
        owner: ShardId,
        heard: Heard<'intake>,
    ) -> Result<Ticket<'intake>, Blocked> {
        let room = Wait::Relay(owner);
        if room.is_over(self) { Ok(Ticket(heard)) } else { Err(Blocked::Shards(room)) }
    }

    /// Sends a parcel to another shard, at the end of the turn.
    #[inline]
    fn push(&mut self, to: ShardId, parcel: Parcel, env: &Env) {
        env.counters().mesh_sent_total.add(1);
        let bytes = parcel.cost();
        self.links.push(to, parcel, bytes);
    }

    /// One of the parcels of a publication.
    #[inline]
    pub fn push_publication(&mut self, to: ShardId, parcel: Parcel, _: &Ticket<'_>, env: &Env) {
        self.push(to, parcel, env);
    }

    /// A message with RETAIN, to the owner of its topic.
    pub fn push_relay(&mut self, owner: ShardId, view: &MessageView<'_>, _: &Ticket<'_>, env: &Env) {
        self.waits.count_relay(owner);
        let message: Message = view.to_message();
        self.push(owner, Parcel::Relay(message), env);
    }

    // What follows needs no ticket: nobody could be paused for it, and each has a bound of its own.

    /// A message of a share group goes on to another shard. It has been admitted, or was owed, when it was published, and each
    /// shard is visited once a round.
    pub fn push_share(&mut self, to: ShardId, pass: Pass, _: Heard<'_>, env: &Env) {
        self.push(to, Parcel::Share(Box::new(pass)), env);
    }

    /// A publisher will not send these again. It has its bound by the messages that it may have unfinished.
    pub fn push_released(&mut self, to: ShardId, publisher: u64, packet_ids: &[u16], env: &Env) {
        let released = Released { publisher, packet_ids: packet_ids.into() };
        self.push(to, Parcel::Released(Box::new(released)), env);
    }

    /// A question for retained messages; a shard has `questions_max` of them under way.
    pub fn push_query(&mut self, owner: ShardId, query: Query, env: &Env) {
        self.push(owner, Parcel::Query(Box::new(query)), env);
    }

    /// The answer. What comes after it is routed to the asker, whose announcement was heard before.
    pub fn push_found(&mut self, to: ShardId, found: Found, _: Heard<'_>, env: &Env) {
        self.push(to, Parcel::answer(found), env);
    }

    /// A connection on its way home; `send_home` looks whether there is room.
    pub fn push_hand_off(&mut self, home: ShardId, hand_off: HandOff, env: &Env) {
        self.push(home, Parcel::HandOff(Box::new(hand_off)), env);
    }
}

impl Core {
    /// Learns what the others have announced. So a client or shard that sent something of this intake could know of nothing
    /// that this shard does not know.
    #[inline]
    pub(super) fn hear<'intake>(&mut self, _: &'intake Intake) -> Heard<'intake> {
        self.read_logs();
        Heard(PhantomData)
    }

    /// The same after the hints of a retained topic were set here: a subscriber that has missed them is heard now.
    pub(super) fn hear_hinted(&mut self, _: Hinted) -> MayStore {
        self.read_logs();
        MayStore(())
    }
}

// They are values for the compiler only.
const _: () = assert!(size_of::<Intake>() + size_of::<Ticket<'_>>() + size_of::<MayStore>() == 0);
