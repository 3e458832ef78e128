//! How a client reads and writes, and how it learns that a connection is over.

use super::*;

impl Client {
    /// Before the clock moves on: what is known to hold up to now.
    pub fn note_time(&mut self, env: &mut Env<'_>) {
        if let Some(conn) = &mut self.conn
            && !env.world.is_failed(conn.endpoint)
            && !env.world.is_closed_by_shard(conn.endpoint)
            && !conn.exposed
        {
            conn.last_good = (env.oracle.now, env.oracle.tick);
            if env.world.is_taken(conn.endpoint) {
                conn.confirmed = conn.whole_at;
            }
        }
        self.watch_left(env);
    }

    /// The clock has moved on.
    pub fn time_moved(&mut self, now: Millis) {
        if let Some(conn) = &mut self.conn {
            conn.exposed = conn.is_overdue(now);
        }
    }

    pub(super) fn watch_left(&mut self, env: &mut Env<'_>) {
        for left in &mut self.left {
            if !left.lossy && env.world.is_lossy(left.endpoint) {
                left.lossy = true;
                env.oracle.lossy(left.conn);
            }
            if !left.closed && env.world.is_closed_by_shard(left.endpoint) {
                left.closed = true;
                // Whether DISCONNECT or Keep Alive was first is open.
                if env.oracle.now >= left.keep_alive_until {
                    env.oracle.lossy(left.conn);
                }
                env.oracle.closed_by_broker(left.conn);
            }
        }
        if let Some((conn, endpoint)) = self.unanswered
            && env.world.is_closed_by_shard(endpoint)
        {
            self.unanswered = None;
            env.oracle.connect_unanswered(conn);
        }
        self.left.retain(|left| !left.closed);
    }

    pub(super) fn feels_like(&mut self, env: &Env<'_>, odds: u32) -> bool {
        env.resting || self.rng.happens(Odds(odds))
    }

    /// Acknowledges, writes and reads as the plan says. True if anything happened.
    pub fn look(&mut self, env: &mut Env<'_>) -> bool {
        self.watch_left(env);
        let mut happened = self.keep_alive(env);
        let acks = self.plan.acks;
        while self
            .conn
            .as_ref()
            .is_some_and(|conn| !conn.acks.is_empty() && conn.farewell.is_none() && !conn.offended)
            && self.feels_like(env, acks)
        {
            self.acknowledge(env);
            happened = true;
        }
        self.publish_queued(env);
        if self.feels_like(env, self.plan.writes) {
            happened |= self.write(env);
        }
        if self.feels_like(env, self.plan.reads) {
            happened |= self.read(env);
        }
        happened
    }

    pub(super) fn keep_alive(&mut self, env: &mut Env<'_>) -> bool {
        let due = self.up().is_some()
            && self.conn.as_ref().is_some_and(|conn| {
                let keep_alive = Millis::from(conn.plan.keep_alive_s) * 1000;
                keep_alive > 0 && conn.out.is_empty() && env.oracle.now >= conn.last_written + keep_alive / 2
            });
        if due {
            self.ping();
        }
        due
    }

    pub(super) fn acknowledge(&mut self, env: &mut Env<'_>) {
        let version = self.plan.version;
        let Some(conn) = &mut self.conn else { return };
        let Some(ack) = conn.acks.pop_front() else { return };
        conn.say(&mut self.sums, packet::ack(version, ack.kind, ack.packet_id, 0));
        match ack.kind {
            packet::PUBACK | packet::PUBCOMP => {
                let message = self.unfinished.remove(&ack.packet_id).flatten();
                if let Some(message) = message.filter(|_| ack.kind == packet::PUBACK) {
                    env.oracle.acknowledged((conn.session, conn.ix), message);
                }
                conn.in_flight.remove(&ack.packet_id);
            }
            _ => {}
        }
        env.trace.line(env.oracle, || {
            format!("{} acknowledges packet {} ({})", self.name, ack.packet_id, ack.kind)
        });
    }

    pub(super) fn write(&mut self, env: &mut Env<'_>) -> bool {
        let Some(conn) = &mut self.conn else { return false };
        let mut happened = false;
        if !conn.out.is_empty() {
            let most = if env.resting { conn.out.len() } else { self.rng.between(1, conn.out.len()) };
            let bytes: Vec<u8> = conn.out.iter().copied().take(most).collect();
            match env.world.write(conn.endpoint, &bytes) {
                Some(0) => {}
                Some(count) => {
                    conn.out.drain(..count);
                    conn.last_written = env.oracle.now;
                    if conn.out.is_empty() {
                        conn.whole_at = env.oracle.now;
                    }
                    happened = true;
                }
                // Over; reading tells how.
                None => conn.out.clear(),
            }
        }
        if conn.out.is_empty() && conn.farewell.is_some() {
            happened |= self.say_goodbye(env);
        }
        happened
    }

    /// Everything was written, DISCONNECT included.
    pub(super) fn say_goodbye(&mut self, env: &mut Env<'_>) -> bool {
        let Some(conn) = &mut self.conn else { return false };
        let Some(how) = conn.farewell else { return false };
        let (endpoint, ix, since) = (conn.endpoint, conn.ix, conn.since(env));
        let sure = !conn.may_be_over(env);
        let over = match how {
            Leave::HalfClose => {
                if !conn.half_closed {
                    env.world.half_close(endpoint);
                    conn.half_closed = true;
                    env.oracle.over(ix, if sure { Over::Lost } else { Over::Unclear }, since);
                    return true;
                }
                return false; // reads until the broker closes
            }
            _ if !sure => Over::Unclear,
            Leave::DisconnectWithWill => Over::WithWill,
            _ => Over::Clean,
        };
        if let Leave::DisconnectExpiry(expiry) = how {
            env.oracle.expiry_changed(ix, Some(Millis::from(expiry) * 1000), sure);
        }
        env.trace.line(env.oracle, || format!("{}'s DISCONNECT is written, {over:?}", self.name));
        env.world.close(endpoint);
        self.gone(env, over, since);
        true
    }

    pub(super) fn read(&mut self, env: &mut Env<'_>) -> bool {
        let Some(conn) = &mut self.conn else { return false };
        let most = if env.resting { usize::MAX } else { self.rng.between(1, 400) };
        let before = conn.input.len();
        let state = env.world.read(conn.endpoint, &mut conn.input, most);
        let happened = conn.input.len() > before;
        self.parse(env);
        match state {
            ClientRead::Open => happened,
            ClientRead::Eof | ClientRead::Reset => {
                self.ended(env, state);
                true
            }
        }
    }

    pub(super) fn parse(&mut self, env: &mut Env<'_>) {
        loop {
            let Some(conn) = &mut self.conn else { return };
            match packet::decode(self.plan.version, &conn.input) {
                Ok(None) => return,
                Ok(Some((incoming, count))) => {
                    conn.input.drain(..count);
                    let most = conn.plan.packet_size_maximum.map_or(usize::MAX, |most| most as usize);
                    env.oracle.check(Checker::Flow, count <= most, |_| {
                        format!("{} got a packet of {count} bytes, its limit is {most}", self.name)
                    });
                    self.incoming(env, incoming);
                }
                Err(why) => {
                    conn.input.clear();
                    return env.oracle.fail(Checker::Content, format!("{}: {why}", self.name));
                }
            }
        }
    }

    /// The broker or the network ended the connection.
    pub(super) fn ended(&mut self, env: &mut Env<'_>, state: ClientRead) {
        let Some(conn) = &self.conn else { return };
        let now = env.oracle.now;
        let failed = env.world.is_failed(conn.endpoint);
        let policy = env.oracle.drops.sessions > 0 && conn.disconnect_code.unwrap_or(0x97) == 0x97;
        let timed_out =
            !conn.accepted && now >= env.oracle.conns[conn.ix].asked_at + env.limits.connect_timeout_ms;
        let overdue = conn.is_overdue(now);
        let allowed = failed
            || env.stopping
            || conn.half_closed
            || conn.offended
            || conn.refused
            || policy
            || timed_out
            || overdue
            || (conn.farewell.is_some() && conn.out.is_empty());
        // A refusal was counted that nobody heard of: its CONNACK may not have arrived in the time that a closing connection
        // is given.
        let refused_unheard = !allowed
            && !conn.accepted
            && env.oracle.refused_known < env.oracle.drops.refused
            && now >= env.oracle.conns[conn.ix].asked_at + Options::default().linger_ms;
        env.oracle.refused_known += u64::from(refused_unheard);
        let allowed = allowed || refused_unheard;
        let code = conn.disconnect_code;
        env.trace.line(env.oracle, || {
            format!("{}'s connection ended: {state:?}, DISCONNECT {code:02x?}", self.name)
        });
        env.oracle.check(Checker::Connection, allowed, |_| {
            format!(
                "{}'s connection was ended without a reason ({state:?}, DISCONNECT {code:02x?})",
                self.name
            )
        });
        // What the broker ends leaves a will too, but when it did is only known within bounds.
        let since = if policy { conn.since(env) } else { conn.last_good };
        let unclear = conn.farewell.is_some() || policy || env.stopping;
        let over = if unclear { Over::Unclear } else { Over::Lost };
        if conn.farewell.is_some()
            && let Some(Leave::DisconnectExpiry(expiry)) = conn.farewell
        {
            env.oracle.expiry_changed(conn.ix, Some(Millis::from(expiry) * 1000), false);
        }
        env.world.close(conn.endpoint);
        self.gone(env, over, since);
    }
}
