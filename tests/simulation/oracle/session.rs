//! Connections and sessions: Session Present, expiry, what a lost CONNACK leaves open.

use super::{
    Checker, ClientIx, Conn, ConnIx, FOREVER, Fate, Millis, MsgId, Oracle, Session, SessionIx, Tick,
};

/// What a CONNECT asked for.
#[derive(Clone, Debug)]
pub struct ConnectAsked {
    pub clean: bool,
    /// As asked; `None` for ever.
    pub expiry_ms: Option<Millis>,
    /// The message and its delay.
    pub will: Option<(MsgId, Millis)>,
}

/// How a connection ended, as far as the client knows.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Over {
    /// DISCONNECT 0x00 is in the kernel and nothing was lost.
    Clean,
    /// As `Clean`, with a code that keeps the will.
    WithWill,
    /// The client closed or reset it, or went silent; no DISCONNECT.
    Lost,
    /// A DISCONNECT may or may not have counted, or the broker ended it.
    Unclear,
    /// Another connection of the same client took its place.
    Replaced,
    /// Its CONNECT was refused.
    Refused,
}

impl Oracle {
    pub fn connect(&mut self, client: ClientIx, asked: ConnectAsked) -> ConnIx {
        let at = self.next();
        let asked_at = self.now;
        if let Some((will, _)) = asked.will {
            self.messages[will].conn = self.conns.len();
        }
        self.conns.push(Conn {
            client,
            asked,
            at,
            asked_at,
            accepted: None,
            session: None,
            over: None,
            closed: false,
            over_at: 0,
            crashed: false,
        });
        self.conns.len() - 1
    }

    fn capped(&self, expiry_ms: Option<Millis>) -> Millis {
        expiry_ms.unwrap_or(FOREVER).min(self.session_expiry_max_ms)
    }

    /// Whether the session would be found at `from` and at `to`.
    fn exists(&self, session: &Session, from: Millis, to: Millis) -> (bool, bool) {
        let (least, most) = session.expiry_ms;
        if session.over {
            return (false, false);
        }
        // A connection that is up keeps its session, but a takeover ends one that does not outlive its connection.
        let (lo, hi) = session.offline.unwrap_or((from, None));
        let surely =
            !session.doubtful && self.drops.sessions == 0 && least > 0 && to < lo.saturating_add(least);
        let surely_not = most == 0 || hi.is_some_and(|hi| from > hi.saturating_add(most));
        (surely, surely_not)
    }

    /// CONNACK 0x00. Returns whether the session goes on, which is what the client believes from now on.
    pub fn connack(&mut self, conn: ConnIx, present: Option<bool>) -> bool {
        let tick = self.next();
        let now = self.now;
        let c = self.conns[conn].clone();
        let previous = self.current[c.client];
        let (surely, surely_not) = match previous {
            Some(session) if !c.asked.clean => self.exists(&self.sessions[session], c.asked_at, now),
            _ => (false, true),
        };
        let continues = present.unwrap_or(surely);
        let who = self.names[c.client].clone();
        self.check(Checker::SessionPresent, !continues || !surely_not, |_| {
            format!("{who}: Session Present although there is no session")
        });
        let from_before = previous.is_some_and(|session| self.crashes.since(self.sessions[session].began));
        let checker = if from_before { Checker::Durable } else { Checker::SessionPresent };
        self.check(checker, continues || !surely || present.is_none(), |_| {
            format!("{who}: no Session Present although the session was kept")
        });
        self.settle_wills_at_connect(conn, continues);
        let expiry = self.capped(c.asked.expiry_ms);
        let session = match previous {
            Some(session) if continues => {
                let s = &mut self.sessions[session];
                if s.doubtful {
                    // It may be a younger one: only what is subscribed from now on is certain.
                    for sub in self
                        .subscriptions
                        .iter_mut()
                        .filter(|sub| sub.session == session && sub.ended.is_none())
                    {
                        sub.doubtful = true;
                    }
                    s.doubtful = false;
                }
                session
            }
            _ => {
                if let Some(session) = previous {
                    self.end_session(session);
                }
                self.begin_session(c.client)
            }
        };
        let s = &mut self.sessions[session];
        s.expiry_ms = (expiry, expiry);
        s.offline = None;
        self.current[c.client] = Some(session);
        let c = &mut self.conns[conn];
        (c.accepted, c.session) = (Some(tick), Some(session));
        self.lay_down(conn);
        continues
    }

    fn begin_session(&mut self, client: ClientIx) -> SessionIx {
        self.sessions.push(Session {
            client,
            began: self.tick,
            expiry_ms: (0, 0),
            offline: None,
            doubtful: false,
            over: false,
            checked: self.tick,
            got: Default::default(),
            order: Default::default(),
            order_on_disk: Default::default(),
            last_retained: Default::default(),
            live_of: Default::default(),
            queued_came_at: Vec::new(),
        });
        self.sessions.len() - 1
    }

    fn end_session(&mut self, session: SessionIx) {
        let tick = self.next();
        self.sessions[session].over = true;
        for s in self.subscriptions.iter_mut().filter(|s| s.session == session) {
            s.ending.get_or_insert(tick);
            s.ended.get_or_insert(tick);
            s.replaced = false;
        }
    }

    /// A CONNECT that will get no answer any more: it may have counted or not.
    pub fn connect_unanswered(&mut self, conn: ConnIx) {
        let c = self.conns[conn].clone();
        let now = self.now;
        self.lay_down(conn);
        self.settle_wills_at_connect(conn, false);
        let expiry = self.capped(c.asked.expiry_ms);
        let session = match self.current[c.client] {
            Some(session) => session,
            None => {
                let session = self.begin_session(c.client);
                self.sessions[session].doubtful = true;
                self.sessions[session].expiry_ms = (expiry, expiry);
                self.current[c.client] = Some(session);
                session
            }
        };
        let s = &mut self.sessions[session];
        let may_have_ended = self.drops.sessions > 0 || c.asked.clean || s.expiry_ms.0 == 0 || {
            let lo = s.offline.map_or(c.asked_at, |(lo, _)| lo);
            now >= lo.saturating_add(s.expiry_ms.0)
        };
        if may_have_ended {
            s.doubtful = true;
            for sub in self.subscriptions.iter_mut().filter(|sub| sub.session == session) {
                sub.ending.get_or_insert(self.tick);
                sub.replaced = false;
                sub.doubtful = true;
            }
        }
        let s = &mut self.sessions[session];
        s.expiry_ms = (s.expiry_ms.0.min(expiry), s.expiry_ms.1.max(expiry));
        let lo = s.offline.map_or(c.asked_at, |(lo, _)| lo);
        s.offline = Some((lo, None));
        self.over(conn, Over::Unclear, (c.asked_at, c.at));
        self.closed_by_broker(conn);
    }

    /// A CONNECT was refused: what was there before is as it was.
    pub fn connect_refused(&mut self, conn: ConnIx) {
        let (at, tick) = (self.conns[conn].asked_at, self.conns[conn].at);
        self.lay_down(conn);
        self.over(conn, Over::Refused, (at, tick));
    }

    /// A connection is over for its client; the broker noticed at `since` at the earliest.
    pub fn over(&mut self, conn: ConnIx, how: Over, (since, tick): (Millis, Tick)) {
        let over_at = self.tick;
        let c = &mut self.conns[conn];
        if c.over.is_some() {
            return;
        }
        c.over_at = over_at;
        c.over = Some((how, tick, since));
        if let Some(session) = c.session
            && self.current[c.client] == Some(session)
            && self.sessions[session].offline.is_none()
        {
            self.sessions[session].offline = Some((since, None));
        }
        self.will_after_over(conn);
    }

    /// DISCONNECT changed the expiry.
    pub fn expiry_changed(&mut self, conn: ConnIx, expiry_ms: Option<Millis>, counts: bool) {
        let expiry = self.capped(expiry_ms);
        if let Some(session) = self.conns[conn].session {
            let s = &mut self.sessions[session];
            s.expiry_ms = if counts {
                (expiry, expiry)
            } else {
                (s.expiry_ms.0.min(expiry), s.expiry_ms.1.max(expiry))
            };
        }
    }

    /// The broker closed its end of a connection that the client had left. Once that holds for all of the client's, the
    /// broker has noticed that it is away.
    pub fn closed_by_broker(&mut self, conn: ConnIx) {
        let (client, now) = (self.conns[conn].client, self.noticed_at());
        self.conns[conn].closed = true;
        let all = self.conns.iter().all(|other| other.client != client || other.closed);
        if let Some(session) = self.current[client].filter(|_| all)
            && let Some((lo, None)) = self.sessions[session].offline
        {
            self.sessions[session].offline = Some((lo, Some(now)));
        }
        self.will_noticed(conn);
    }

    /// Bytes of the connection were lost in the network after all.
    pub fn lossy(&mut self, conn: ConnIx) {
        if let Some((Over::Clean | Over::WithWill, tick, since)) = self.conns[conn].over {
            self.conns[conn].over = Some((Over::Unclear, tick, since));
            self.will_unclear(conn);
            let asked = self.capped(self.conns[conn].asked.expiry_ms);
            if let Some(session) = self.conns[conn].session {
                let s = &mut self.sessions[session];
                s.expiry_ms = (s.expiry_ms.0.min(asked), s.expiry_ms.1.max(asked));
            }
        }
    }

    /// Everything that was written on this connection was read by the broker.
    pub fn all_taken(&mut self, conn: ConnIx) {
        let open = |m: &super::Message| m.conn == conn && !m.will && m.fate == Fate::Unknown;
        for id in 0..self.messages.len() {
            if open(&self.messages[id]) {
                self.certain(id);
            }
        }
    }
}
