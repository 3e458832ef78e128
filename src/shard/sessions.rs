//! The sessions of a shard, by Client Identifier, and their subscriptions. It knows no socket.
//!
//! What outlives a connection changes here and nowhere else: a session begins and ends, gets and loses its connection, its
//! will, its expiry and its subscriptions. What follows from a change at other owners is returned as a value.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::clock::{Millis, NEVER, after_s};
use crate::io::ListenerId;
use crate::memory::{Arena, Budget, Class, Key, Message, ShardSet, Table};
use crate::session::{
    Cx, Delivered, DropReason, Drops, Grant, Orphan, Place, Retain, Session, Share, Spares,
};
use crate::store::{Delivery, Record, SessionImage, WallClock};
use crate::topic::{self, Change, FilterKey, Options, Presence, Router, Subscribed, Unsubscribed};

use super::Timer;
use super::connection::End;
use super::env::Env;
use super::keep::{options_of_byte, options_to_byte};
use super::losses::Losses;
use super::pulls::Pulls;
use super::request::Request;
use super::slots::Slot;
use super::survey::Survey;
use super::will::Will;

pub(super) struct Sessions {
    pub arena: Arena<Slot>,
    /// Indexes of sessions by keyed hash of the Client Identifier, which stays with the session.
    pub by_client_id: Table,
    pub router: Router,
    /// Bytes of the router that are charged to `Class::Subscription`.
    pub charged_topics: usize,
    /// Memory of sessions for reuse.
    pub spares: Spares,
    /// Sessions that are to end because their queue was full.
    pub overflowed: Vec<Key>,
    /// Sessions without a connection for which others wait.
    pub vacant: VecDeque<Key>,
    pub client_ids_assigned: u64,
    /// Sessions with cursors that may go on.
    pub pulls: Pulls,
    pub losses: Losses,
    pub survey: Survey,
}

/// Messages of shared subscriptions that a session will not finish, with their groups.
pub(super) type Orphans = Vec<(Option<Key>, Message)>;

/// What follows when a session has lost its connection.
#[must_use]
pub(super) struct Disconnected {
    /// What other shards are to know.
    pub interest: Vec<Change>,
    pub orphans: Orphans,
    /// Its will or its end is due.
    pub is_due: bool,
}

/// What follows when a session has ended.
#[must_use]
pub(super) struct SessionEnd {
    pub interest: Vec<Change>,
    pub orphans: Orphans,
    /// Messages that nobody gets any more.
    pub lost: u64,
}

/// What follows when a session loses its right to go on.
#[must_use]
pub(super) enum Forfeited {
    /// This connection is to end, and the session with it.
    Connected(Key),
    /// The connection that waits for it begins another one.
    Awaited,
    /// It is to end now.
    Ends,
}

/// The connections that wait for a session, and when the CONNECT of the newest one was read.
#[derive(Debug, Default)]
pub(super) struct Successors {
    pub connections: VecDeque<Key>,
    connected_at: Millis,
}

impl Sessions {
    pub fn new(env: &Env) -> Sessions {
        let clients = env.options.clients_expected;
        Sessions {
            arena: Arena::with_capacity(clients),
            by_client_id: Table::default(),
            router: Router::new(env.keys, env.id, env.options.route_cache_entries).with_room(clients),
            charged_topics: 0,
            spares: Spares::default(),
            overflowed: Vec::new(),
            vacant: VecDeque::new(),
            client_ids_assigned: 0,
            pulls: Pulls::new(env.options.questions_max),
            losses: Losses::default(),
            survey: Survey::default(),
        }
    }

    #[inline]
    pub fn get(&self, session: Key) -> Option<&Slot> {
        self.arena.get(session)
    }

    /// The session of a Client Identifier.
    pub fn find(&self, client_id: &str, env: &Env) -> Option<Key> {
        let named = |index| self.arena.at(index).is_some_and(|(_, slot)| *slot.client_id == *client_id);
        let index = self.by_client_id.find(topic::fingerprint(&env.keys, client_id), named)?;
        self.arena.at(index).map(|(key, _)| key)
    }

    // ---- life --------------------------------------------------------------------------------------------------------

    /// Whether there is room for the session that a client asks for, besides what its session takes already.
    pub fn fits(&self, request: &Request, env: &mut Env) -> bool {
        let kept = self.find(&request.client_id, env).and_then(|session| self.get(session));
        let will = request.will.as_ref().map_or(0, |will| will.cost());
        let cost = Slot::cost_of(&request.client_id) + will;
        env.budget.has_room(Class::Session, cost.saturating_sub(kept.map_or(0, Slot::cost)))
    }

    /// Whether the client may have the session: it is its user's, or it has ended, or nobody can come in any more as its owner
    /// and the client wants a new one in its place.
    pub fn owns(&self, request: &Request, session: Key, env: &mut Env) -> bool {
        let Some(slot) = self.get(session) else { return false };
        let ended = slot.connection.is_none() && slot.ends_at <= env.now;
        if slot.user == request.identity.user || ended {
            return true;
        }
        request.clean_start && env.access.is_gone(slot.user.as_deref(), slot.by_certificate)
    }

    /// A session of its own for a Client Identifier that has none.
    pub fn begin(&mut self, request: &Request, client_hash: u64, env: &mut Env) -> Key {
        let client_id = request.client_id.clone();
        env.budget.charge_always(Class::Session, Slot::cost_of(&client_id)); // `fits` has said so
        let key = self.arena.insert(Slot::new(client_id, client_hash, request.identity.user.clone()));
        self.by_client_id.insert(client_hash, key.index);
        key
    }

    /// The session gets a connection, and what its client asks for. // [MQTT-3.1.2-7]
    pub fn connect(
        &mut self,
        session: Key,
        (connection, listener): (Key, ListenerId),
        request: &mut Request,
        expiry_s: u32,
        env: &mut Env,
    ) {
        let Some(slot) = self.arena.get_mut(session) else { return };
        debug_assert!(slot.connection.is_none(), "the former connection has ended");
        slot.rights.enter(listener.0);
        slot.by_certificate |= request.identity.by_certificate;
        slot.connection = Some(connection);
        slot.connected_at = slot.connected_at.max(request.read_at);
        slot.asked_expiry_s = request.session_expiry_s;
        slot.expiry_s = expiry_s;
        slot.ends_at = NEVER;
        slot.session.resume();
        debug_assert!(slot.will.is_none(), "the former will was sent or forgotten");
        slot.will = request.will.take();
        env.budget.charge_always(Class::Session, slot.will.as_ref().map_or(0, |will| will.cost()));
        self.keep_connected(session, env);
    }

    /// DISCONNECT names another Session Expiry Interval. False if it must not, since CONNECT said 0; then the DISCONNECT counts
    /// as not received, and the will goes out. // [U5-3.14.2-4] [U5-3.14.2-3]
    #[must_use]
    pub fn set_expiry(&mut self, session: Key, expiry_s: u32, expiry_max_s: u32) -> bool {
        let Some(slot) = self.arena.get_mut(session) else { return true };
        if slot.asked_expiry_s == 0 && expiry_s != 0 {
            return false;
        }
        slot.expiry_s = expiry_s.min(expiry_max_s);
        true
    }

    /// The connection of a session is over: its will, its expiry, and what share groups are to get back. `None` if it has
    /// another connection by now.
    /// [MQTT-3.1.2-23] [U5-3.14-1] [U5-4.1-1]; 3.1.1: [MQTT-3.1.2-5] [MQTT-4.1.0-1]
    pub fn disconnect(
        &mut self,
        session: Key,
        connection: Key,
        end: End,
        env: &mut Env,
    ) -> Option<Disconnected> {
        let slot = self.arena.get_mut(session)?;
        if slot.connection != Some(connection) {
            return None;
        }
        slot.connection = None;
        slot.aside.forget_lag();
        slot.session.connection_lost();
        if slot.cursors.is_some() {
            self.drop_behind(session, env);
        }
        env.counters().clients_connected.sub(1);
        match end {
            // [MQTT-3.14.4-3] [MQTT-3.1.2-10]
            End::Disconnected => drop(self.take_will(session, env)),
            // Of a session that is taken over the next connection decides, in `find_or_begin`.
            End::TakenOver | End::DisconnectedWithWill | End::Lost | End::Told | End::Refused(..) => {}
        }
        let slot = self.arena.get_mut(session)?;
        let (expiry_s, has_next) = (slot.expiry_s, slot.aside.has_successor());
        slot.ends_at = if expiry_s == u32::MAX { NEVER } else { after_s(env.now, expiry_s.into()) };
        if let Some(will) = &mut slot.will {
            will.due_at = after_s(env.now, will.delay_s.min(expiry_s).into()); // [U5-3.1.3-1]
        }
        let due = slot.ends_at.min(slot.will_at());
        self.keep_left(session, env);

        let interest = self.set_presence(session, Presence::Offline);
        let orphans = self.take_orphans(session, env, |session, router, cx, out| {
            session.take_unsent_shared(cx, |member| router.subscription(member).is_some(), out);
        });
        // A successor decides about will and session itself.
        let is_due = !has_next && due <= env.now;
        if has_next {
            self.vacant.push_back(session);
        } else if due != NEVER && !is_due {
            env.set_timer(due, Timer::Session(session));
        }
        Some(Disconnected { interest, orphans, is_due })
    }

    /// Ends a session and everything in it.
    /// Only here is state discarded, and never that of a live connection. // [MQTT-4.1.0-1] [U5-4.1-2]; 3.1.1: [MQTT-4.1.0-2]
    pub fn end(&mut self, session: Key, env: &mut Env) -> Option<SessionEnd> {
        // [U5-4.8.2-6] [MQTT-4.8.2-5]
        let orphans = self.take_orphans(session, env, |session, _, cx, out| {
            session.take_unacked_shared(cx, out);
            session.take_unsent_shared(cx, |_| true, out);
        });
        let waited = self.forget_behind(session, env);
        let mut slot = self.arena.remove(session)?;
        debug_assert!(slot.will.is_none(), "a will goes out before its session ends");
        debug_assert!(!slot.aside.has_successor(), "a session with successors does not end on its own");
        let lost = waited + slot.session.release(&mut env.budget);
        let mut interest = Vec::new();
        self.router.drop_all(&mut slot.subscriptions, &mut interest);
        self.by_client_id.remove(slot.client_hash, session.index);
        if slot.is_kept {
            env.counters().store_sessions.sub(1);
            if let Some(keep) = &mut env.keep {
                keep.ended(session.index, &mut env.budget);
            }
        }
        env.budget.release(Class::Session, slot.cost());
        Some(SessionEnd { interest, orphans, lost })
    }

    /// It is looked at again when its will or its end is due.
    pub fn set_timer(&self, session: Key, env: &mut Env) {
        let next = self.get(session).map_or(NEVER, |slot| slot.ends_at.min(slot.will_at()));
        if next != NEVER {
            env.set_timer(next, Timer::Session(session));
        }
    }

    pub fn has_ended(&self, session: Key, now: Millis) -> bool {
        self.get(session).is_none_or(|slot| slot.overflowed || slot.ends_at <= now)
    }

    /// The policy `disconnect` of a full queue: the client goes, and its session with it, since it has a gap now. Not
    /// here but later in the turn: its will may fill the next queue, and so on through all of them.
    pub fn overflow(&mut self, session: Key, env: &Env) {
        if let Some(slot) = self.arena.get_mut(session)
            && !slot.overflowed
        {
            slot.overflowed = true;
            self.overflowed.push(session);
            env.counters().sessions_ended_queue_full_total.add(1);
        }
    }

    /// A session that has overflowed ends with its connection.
    pub fn forfeit(&mut self, session: Key, now: Millis) -> Option<Forfeited> {
        let slot = self.arena.get_mut(session)?;
        slot.expiry_s = 0;
        Some(match slot.connection {
            Some(connection) => Forfeited::Connected(connection),
            None if slot.aside.has_successor() => {
                slot.ends_at = now;
                Forfeited::Awaited
            }
            None => Forfeited::Ends,
        })
    }

    /// A Client Identifier that no session has and that is at home here. // [MQTT-3.1.3-6] [MQTT-3.2.2-16]
    ///
    /// Nobody can tell the next one from those before: they are hashed with the keys of the process, which the kernel's
    /// random numbers made and nobody is told.
    pub fn assign_client_id(&mut self, env: &Env) -> Box<str> {
        loop {
            self.client_ids_assigned += 1;
            let mut hash = Sha256::new();
            env.keys.iter().for_each(|key| hash.update(key.to_le_bytes()));
            hash.update(b"assigned Client Identifier");
            hash.update(env.id.to_le_bytes());
            hash.update(self.client_ids_assigned.to_le_bytes());
            let hash = hash.finalize();
            let id = hash[..10].iter().fold("auto-".to_owned(), |id, byte| id + &format!("{byte:02x}"));
            let here = topic::shard_of(&env.keys, &id, env.shards) == env.id;
            if here && self.find(&id, env).is_none() {
                return id.into();
            }
        }
    }

    // ---- who waits for a session -------------------------------------------------------------------------------------

    /// A connection, whose CONNECT was read then, waits for the end of the one that the session has.
    pub fn stand_in_line(&mut self, session: Key, connection: Key, read_at: Millis) {
        if let Some(slot) = self.arena.get_mut(session) {
            slot.connected_at = read_at;
            slot.aside.push_successor(connection);
        }
    }

    /// A connection that waited for the session is gone.
    pub fn leave_line(&mut self, session: Key, connection: Key) {
        if let Some(slot) = self.arena.get_mut(session) {
            slot.aside.forget_successor(connection);
        }
    }

    /// The connection that has waited longest.
    pub fn next_in_line(&mut self, session: Key) -> Option<Key> {
        self.arena.get_mut(session)?.aside.pop_successor()
    }

    /// Those who wait for a session that is about to end.
    pub fn take_line(&mut self, session: Key) -> Successors {
        let Some(slot) = self.arena.get_mut(session) else { return Successors::default() };
        Successors { connections: slot.aside.take_successors(), connected_at: slot.connected_at }
    }

    /// They wait for the one that has begun in its place.
    pub fn pass_line_on(&mut self, session: Key, line: Successors) {
        if let Some(slot) = self.arena.get_mut(session) {
            slot.connected_at = line.connected_at;
            line.connections.into_iter().for_each(|key| slot.aside.push_successor(key));
        }
    }

    // ---- after a start -----------------------------------------------------------------------------------------------

    /// A session that was kept on disk; nothing of it is due before `earliest`. Returns what other shards are to know.
    #[must_use]
    pub fn restore(
        &mut self,
        image: &SessionImage,
        clock: WallClock,
        earliest: Millis,
        env: &mut Env,
    ) -> Vec<Change> {
        let ends_at = image.ends_at(clock, env.now);
        if ends_at <= env.now && image.will.is_none() {
            env.counters().sessions_expired_total.add(1);
            return Vec::new();
        }
        let client_hash = topic::fingerprint(&env.keys, &image.client_id);
        let will = image.will.as_deref().map(|stored| {
            let mut will = Will::restored(stored, clock);
            if will.due_at == NEVER {
                // Its client was connected: it left when the broker did.
                will.due_at = after_s(env.now, will.delay_s.min(image.expiry_s).into());
            }
            will.due_at = will.due_at.max(earliest);
            // Until then its client cancels it by coming back, as if it had asked for a delay.
            will.delay_s = will.delay_s.max(1);
            Box::new(will)
        });
        let slot = Slot {
            by_certificate: image.by_certificate,
            expiry_s: image.expiry_s,
            asked_expiry_s: image.expiry_s,
            ends_at: ends_at.max(earliest),
            is_kept: true,
            will,
            ..Slot::new(image.client_id.clone(), client_hash, image.user.clone().map(Arc::from))
        };
        env.budget.charge_always(Class::Session, slot.cost());
        env.counters().store_sessions.add(1);
        let key = self.arena.insert(slot);
        self.by_client_id.insert(client_hash, key.index);
        let mut changes = Vec::new();
        let mut shared = HashMap::new();
        if let Some(slot) = self.arena.get_mut(key) {
            for one in image.filters() {
                let options = options_of_byte(one.options);
                let set = &mut slot.subscriptions;
                let subscribed = self.router.subscribe(set, key, &one.filter, options, one.identifier);
                changes.extend(subscribed.interest);
                if one.filter.starts_with("$share/") {
                    shared.insert(&*one.filter, subscribed.key);
                }
            }
            restore_messages(&mut slot.session, image, &shared, &mut env.budget);
        }
        if let Some(keep) = &mut env.keep {
            let budget = &mut env.budget;
            image.taken.iter().for_each(|origin| keep.taken.restore(*origin, key.index, budget));
        }
        changes.extend(self.set_presence(key, Presence::Offline));
        changes
    }

    // ---- wills -------------------------------------------------------------------------------------------------------

    pub fn take_will(&mut self, session: Key, env: &mut Env) -> Option<Box<Will>> {
        let slot = self.arena.get_mut(session)?;
        let will = slot.will.take()?;
        if slot.is_kept {
            env.record(&Record::NoWill { index: session.index });
        }
        env.budget.release(Class::Session, will.cost());
        Some(will)
    }

    /// Whether a client that comes back to its session is in time to cancel its will. // [U5-3.1.4-3] [U5-3.1.3-2]
    pub fn will_is_cancelled(&self, session: Key, now: Millis) -> bool {
        self.get(session).is_some_and(|slot| {
            let survives = slot.will.as_ref().is_some_and(|will| will.delay_s > 0) && slot.expiry_s > 0;
            slot.will_at() > now && survives
        })
    }

    // ---- subscriptions -----------------------------------------------------------------------------------------------

    /// The session subscribes to a filter, or gives its subscription other options.
    /// An identical filter replaces options and identifier. // [MQTT-3.8.4-3]
    pub fn subscribe(
        &mut self,
        session: Key,
        filter: &str,
        options: Options,
        identifier: u32,
        env: &mut Env,
    ) -> Option<Subscribed> {
        let slot = self.arena.get_mut(session)?;
        if slot.is_kept {
            let (index, options) = (session.index, options_to_byte(options));
            env.record(&Record::Subscribed { index, filter, options, identifier });
        }
        Some(self.router.subscribe(&mut slot.subscriptions, session, filter, options, identifier))
    }

    /// Ends a subscription, and its cursor with it. `None` if there is none.
    pub fn unsubscribe(&mut self, session: Key, filter: &str, env: &mut Env) -> Option<Unsubscribed> {
        let slot = self.arena.get_mut(session)?;
        let unsubscribed = self.router.unsubscribe(&mut slot.subscriptions, filter)?;
        if slot.is_kept {
            env.record(&Record::Unsubscribed { index: session.index, filter });
        }
        if let Some(cursors) = &mut slot.cursors {
            cursors.remove(unsubscribed.key);
            self.schedule_cursors(session); // something may have waited for it
        }
        Some(unsubscribed)
    }

    /// What the router keeps is charged as it is: at each SUBSCRIBE, and where something of it may have gone.
    pub fn charge_topics(&mut self, env: &mut Env) {
        let kept = self.router.kept_bytes();
        env.budget.recharge(Class::Subscription, self.charged_topics, kept);
        self.charged_topics = kept;
    }

    /// Its subscriptions count as those of a connected client, or not any more. Returns what other shards are to know.
    #[must_use]
    pub fn set_presence(&mut self, session: Key, presence: Presence) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(slot) = self.arena.get(session) {
            self.router.set_presence(&slot.subscriptions, presence, &mut changes);
        }
        changes
    }

    /// Whether the session of a subscription is connected, if it exists.
    pub fn is_here(&self, subscription: Key) -> bool {
        self.router.subscription(subscription).is_none_or(|subscription| {
            self.arena.get(subscription.session).is_some_and(|slot| slot.connection.is_some())
        })
    }

    /// Every shard that a direct message on `topic` could go to from here, members of share groups included.
    pub fn next_hops(&mut self, topic: &str) -> ShardSet {
        let route = self.router.route(topic);
        route.groups.iter().fold(route.remote, |hops, group| {
            hops.union(self.router.group_shards(*group, topic::Members::Any))
        })
    }

    // ---- messages ----------------------------------------------------------------------------------------------------

    /// Counts what became of a message that was delivered to a session.
    #[inline]
    pub fn count_delivered(&mut self, session: Key, delivered: Delivered, payload: usize, env: &Env) {
        match delivered {
            Delivered::Sent => env.count_sent(1, payload as u64),
            Delivered::Queued | Delivered::QueuedDroppingOldest | Delivered::Refused(_) => {}
            Delivered::Dropped(reason) => {
                env.count_drop(reason, 1);
                self.note_drop(session, reason);
            }
            Delivered::Disconnect => {
                env.count_drop(DropReason::QueueFull, 1);
                self.note_drop(session, DropReason::QueueFull);
                self.overflow(session, env);
            }
        }
    }

    // ---- messages of share groups ------------------------------------------------------------------------------------

    /// Messages of shared subscriptions that the session will not finish, with their groups.
    pub fn take_orphans(
        &mut self,
        session: Key,
        env: &mut Env,
        take: impl FnOnce(&mut Session, &Router, &mut Cx<'_>, &mut Vec<Orphan>),
    ) -> Orphans {
        let Some(slot) = self.arena.get_mut(session) else { return Vec::new() };
        let mut drops = Drops::default();
        let mut orphans = Vec::new();
        let mut cx = env.cx(&mut drops, &mut self.spares, slot.is_kept);
        take(&mut slot.session, &self.router, &mut cx, &mut orphans);
        self.keep(session, env);
        env.count_drops(drops);
        self.groups_of(orphans)
    }

    /// With their groups, while the subscriptions exist.
    fn groups_of(&self, orphans: Vec<Orphan>) -> Orphans {
        let group = |subscription| match self.router.filter_of(subscription) {
            Some(FilterKey::Group(group)) => Some(group),
            Some(FilterKey::Ordinary(_)) | None => None,
        };
        orphans.into_iter().map(|(subscription, message, _)| (group(subscription), message)).collect()
    }
}

/// Messages that were kept for a session. `shared` has its shared subscriptions by filter.
fn restore_messages(
    session: &mut Session,
    image: &SessionImage,
    shared: &HashMap<&str, Key>,
    budget: &mut Budget,
) {
    let mut put = |place: Place, delivery: &Delivery| {
        let share = shared.get(&*delivery.share).map_or(Share::No, |key| Share::Last(*key));
        let retain = match delivery.retain {
            0 => Retain::Clear,
            1 => Retain::AsPublished,
            _ => Retain::Set,
        };
        let grant = Grant { qos: delivery.qos, retain, identifiers: &delivery.identifiers, share };
        session.restore(place, Some((delivery.message.clone(), &grant)), budget);
    };
    for (packet_id, delivery) in &image.flying {
        put(Place::Flying { packet_id: *packet_id }, delivery);
    }
    for delivery in image.queue.iter().chain(&image.behind) {
        put(Place::Queued, delivery);
    }
    for packet_id in &image.released {
        session.restore(Place::Released { packet_id: *packet_id }, None, budget);
    }
    image.received.iter().for_each(|packet_id| session.restore_received(*packet_id));
    session.restore_packet_id_next(image.packet_id_next);
    session.connection_lost();
}
