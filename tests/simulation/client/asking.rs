//! What a client sends of its own accord: its steps, and how it leaves.

use super::*;

impl Client {
    pub fn connect(&mut self, env: &mut Env<'_>, mut plan: ConnectPlan) {
        if self.unanswered.is_some() || self.conn.is_some() {
            return;
        }
        let version = self.plan.version;
        plan.clean |= self.must_clean;
        plan.shard %= env.shards;
        if version == Version::V311 && plan.clean {
            plan.expiry_s = 0;
        }
        if plan.clean {
            self.forget();
        }
        let will = plan.will.clone().map(|will| self.will(env, &will));
        let mut properties = Properties::new();
        if version.is_v5() {
            if plan.expiry_s > 0 {
                properties.push((packet::SESSION_EXPIRY_INTERVAL, Value::Number(plan.expiry_s)));
            }
            if let Some(maximum) = plan.receive_maximum {
                properties.push((packet::RECEIVE_MAXIMUM, Value::Number(u32::from(maximum))));
            }
            if let Some(maximum) = plan.packet_size_maximum {
                properties.push((packet::MAXIMUM_PACKET_SIZE, Value::Number(maximum)));
            }
            if plan.topic_alias_maximum > 0 {
                let maximum = Value::Number(u32::from(plan.topic_alias_maximum));
                properties.push((packet::TOPIC_ALIAS_MAXIMUM, maximum));
            }
        }
        let bytes = packet::connect(&packet::ConnectPacket {
            version,
            client_id: &self.name,
            clean_start: plan.clean,
            keep_alive_s: plan.keep_alive_s,
            properties,
            will: will.as_ref().map(|(_, _, packet)| packet),
        });
        let expiry_ms = (plan.expiry_s < u32::MAX).then(|| Millis::from(plan.expiry_s) * 1000);
        let ix = env.oracle.connect(
            self.ix,
            ConnectAsked {
                clean: plan.clean,
                expiry_ms,
                will: will.map(|(message, delay, _)| (message, delay)),
            },
        );
        self.sums.connects += 1;
        self.sums.packets += 1;
        let endpoint = env.world.connect(plan.shard, ListenerId(0));
        let now = env.oracle.now;
        env.trace.line(env.oracle, || {
            format!(
                "{} CONNECT through shard {}{}, expiry {} s, keep alive {} s, receive maximum {:?}{}{}",
                self.name,
                plan.shard,
                if plan.clean { ", clean" } else { "" },
                plan.expiry_s,
                plan.keep_alive_s,
                plan.receive_maximum,
                plan.packet_size_maximum.map_or(String::new(), |most| format!(", packets up to {most}")),
                plan.will.as_ref().map_or(String::new(), |w| format!(", will {w:?}"))
            )
        });
        self.conn = Some(Conn {
            endpoint,
            ix,
            plan,
            accepted: false,
            continues: false,
            session: usize::MAX,
            out: bytes.into(),
            input: Vec::new(),
            aliases_in: BTreeMap::new(),
            aliases_out: BTreeMap::new(),
            server_receive_maximum: 1,
            server_alias_maximum: 0,
            acks: VecDeque::new(),
            in_flight: BTreeSet::new(),
            requests: VecDeque::new(),
            pings: 0,
            queue: VecDeque::new(),
            farewell: None,
            half_closed: false,
            offended: false,
            last_written: now,
            whole_at: now,
            confirmed: now,
            exposed: false,
            last_good: (now, env.oracle.tick),
            disconnect_code: None,
            refused: false,
        });
    }

    /// Our half of the session is gone.
    pub(super) fn forget(&mut self) {
        self.outgoing.clear();
        self.incoming.clear();
        self.unfinished.clear();
    }

    pub(super) fn will(
        &mut self,
        env: &mut Env<'_>,
        plan: &crate::plan::WillPlan,
    ) -> (MsgId, Millis, packet::WillPacket) {
        let id = env.oracle.messages.len();
        let payload = format!("will m{id}").into_bytes();
        let topic = TOPICS[plan.topic].to_string();
        let earliest = env.oracle.next();
        let properties = Properties::new();
        env.oracle.message(Message {
            by: self.ix,
            topic: topic.clone(),
            qos: plan.qos,
            retain: plan.retain,
            payload: payload.clone(),
            properties,
            expiry_s: None,
            will: true,
            earliest,
            sent: None,
            sent_at: 0,
            conn: usize::MAX,
            fate: Fate::Unknown,
            certain_at: 0,
            certain_now: 0,
            settled: None,
            copies: 1,
            again: false,
            is_split: false,
            is_undecided: false,
            sent_undecided: 0,
        });
        let mut properties = Properties::new();
        if plan.delay_s > 0 {
            properties.push((packet::WILL_DELAY_INTERVAL, Value::Number(plan.delay_s)));
        }
        let packet = packet::WillPacket { topic, payload, qos: plan.qos, retain: plan.retain, properties };
        (id, Millis::from(plan.delay_s) * 1000, packet)
    }

    pub(super) fn free_packet_id(&mut self) -> u16 {
        loop {
            self.packet_id = self.packet_id % 20 + 1;
            let id = self.packet_id;
            let asked = self.conn.iter().flat_map(|conn| &conn.requests).any(|request| match request {
                Request::Subscribe { packet_id, .. } | Request::Unsubscribe { packet_id, .. } => {
                    *packet_id == id
                }
            });
            if !asked && self.outgoing.iter().all(|out| out.packet_id != id) {
                return id;
            }
        }
    }

    pub(super) fn ids_are_short(&self) -> bool {
        self.outgoing.len() + self.conn.as_ref().map_or(0, |conn| conn.requests.len()) >= 15
    }

    pub fn subscribe(&mut self, env: &mut Env<'_>, filters: Vec<(String, u8)>, identifier: Option<u32>) {
        if self.up().is_none() || self.ids_are_short() {
            return;
        }
        let packet_id = self.free_packet_id();
        let version = self.plan.version;
        let Some(conn) = &mut self.conn else { return };
        let versions = filters.iter().map(|(filter, options)| {
            let (share, matches) = split_share(filter);
            Subscription {
                client: self.ix,
                session: conn.session,
                filter: filter.clone(),
                retain_handling: if share.is_some() { 2 } else { options >> 4 & 3 },
                share,
                matches,
                qos: options & 3,
                no_local: options & 4 != 0,
                retain_as_published: options & 8 != 0,
                identifier,
                asked: 0,
                acked: None,
                ending: None,
                ended: None,
                replaced: false,
                doubtful: false,
            }
        });
        let begun = env.oracle.subscribe(conn.session, versions.collect());
        env.trace.line(env.oracle, || format!("{} SUBSCRIBE {filters:?} id {identifier:?}", self.name));
        conn.say(&mut self.sums, packet::subscribe(version, packet_id, identifier, &filters));
        conn.requests.push_back(Request::Subscribe { packet_id, begun });
    }

    pub fn unsubscribe(&mut self, env: &mut Env<'_>, filters: Vec<String>) {
        if self.up().is_none() || self.ids_are_short() {
            return;
        }
        let packet_id = self.free_packet_id();
        let version = self.plan.version;
        let Some(conn) = &mut self.conn else { return };
        env.oracle.unsubscribe(conn.session, &filters);
        env.trace.line(env.oracle, || format!("{} UNSUBSCRIBE {filters:?}", self.name));
        conn.say(&mut self.sums, packet::unsubscribe(version, packet_id, &filters));
        conn.requests.push_back(Request::Unsubscribe { packet_id, filters, asked: env.oracle.tick });
    }

    pub(super) fn publish(&mut self, env: &mut Env<'_>, plan: &PublishPlan) {
        let Some(conn) = &mut self.conn else { return };
        let eager = conn.plan.eager && !conn.accepted && self.outgoing.is_empty();
        if conn.farewell.is_some() || conn.half_closed || conn.offended || !(conn.accepted || eager) {
            return;
        }
        for _ in 0..plan.count {
            conn.queue.push_back(plan.clone());
        }
        self.publish_queued(env);
    }

    /// As much as the broker's Receive Maximum allows.
    pub(super) fn publish_queued(&mut self, env: &mut Env<'_>) {
        loop {
            let open = self.outgoing.len();
            let short = self.ids_are_short();
            let Some(conn) = &mut self.conn else { return };
            let Some(plan) = conn.queue.front() else { return };
            if plan.qos > 0 && (open >= conn.server_receive_maximum || short) {
                return;
            }
            let Some(plan) = conn.queue.pop_front() else { return };
            self.publish_one(env, &plan);
        }
    }

    pub(super) fn publish_one(&mut self, env: &mut Env<'_>, plan: &PublishPlan) {
        let packet_id = if plan.qos > 0 { self.free_packet_id() } else { 0 };
        let version = self.plan.version;
        let Some(conn) = &mut self.conn else { return };
        let id = env.oracle.messages.len();
        let payload =
            if plan.clear { Vec::new() } else { format!("{}m{id}", "x".repeat(plan.size)).into_bytes() };
        let mut properties = Properties::new();
        if version.is_v5() && (plan.clear || plan.property) {
            properties.push((packet::USER_PROPERTY, Value::Pair("m".into(), id.to_string())));
        }
        let earliest = env.oracle.next();
        let id = env.oracle.message(Message {
            by: self.ix,
            topic: TOPICS[plan.topic].to_string(),
            qos: plan.qos,
            retain: plan.retain,
            payload: payload.clone(),
            properties: properties.clone(),
            expiry_s: plan.expiry_s,
            will: false,
            earliest,
            sent: Some(earliest),
            sent_at: env.oracle.now,
            conn: conn.ix,
            fate: Fate::Unknown,
            certain_at: 0,
            certain_now: 0,
            settled: None,
            copies: 1,
            again: false,
            is_split: false,
            is_undecided: false,
            sent_undecided: 0,
        });
        if let Some(expiry) = plan.expiry_s {
            properties.push((packet::MESSAGE_EXPIRY_INTERVAL, Value::Number(expiry)));
        }
        let mut topic = TOPICS[plan.topic].to_string();
        if plan.alias && conn.server_alias_maximum > 0 {
            let alias = plan.topic as u32 % conn.server_alias_maximum + 1;
            properties.push((packet::TOPIC_ALIAS, Value::Number(alias)));
            if conn.aliases_out.insert(alias, plan.topic) == Some(plan.topic) {
                topic.clear();
            }
        }
        env.trace
            .line(env.oracle, || format!("{} PUBLISH {} packet {packet_id}", self.name, env.oracle.name(id)));
        let publish =
            Publish { dup: false, qos: plan.qos, retain: plan.retain, topic, packet_id, properties, payload };
        conn.say(&mut self.sums, packet::publish(version, &publish));
        if plan.qos > 0 {
            self.outgoing.push_back(Outgoing { packet_id, message: id, released: false, sent_on: conn.ix });
        }
    }

    pub(super) fn ping(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.say(&mut self.sums, packet::pingreq());
            conn.pings += 1;
        }
    }

    pub fn leave(&mut self, env: &mut Env<'_>, how: Leave) {
        let version = self.plan.version;
        let Some(conn) = &mut self.conn else { return };
        env.trace.line(env.oracle, || format!("{} leaves: {how:?}", self.name));
        conn.queue.clear();
        match how {
            Leave::Disconnect => conn.say(&mut self.sums, packet::disconnect(version, 0, None)),
            Leave::DisconnectWithWill => conn.say(&mut self.sums, packet::disconnect(version, 4, None)),
            // 0 cannot become more: that would be a protocol error.
            Leave::DisconnectExpiry(_) if conn.plan.expiry_s == 0 => {
                conn.say(&mut self.sums, packet::disconnect(version, 0, None));
                conn.farewell = Some(Leave::Disconnect);
                return;
            }
            Leave::DisconnectExpiry(expiry) => {
                conn.say(&mut self.sums, packet::disconnect(version, 0, Some(expiry)))
            }
            Leave::HalfClose => {}
            Leave::Close | Leave::Reset | Leave::Vanish => {
                let (endpoint, since) = (conn.endpoint, conn.since(env));
                match how {
                    Leave::Close => env.world.close(endpoint),
                    Leave::Reset => env.world.reset(endpoint),
                    _ => env.world.vanish(endpoint),
                }
                return self.gone(env, Over::Lost, since);
            }
        }
        conn.farewell = Some(how);
    }

    /// Leaves the connection as it is and will not look at it again.
    pub(super) fn abandon(&mut self, env: &mut Env<'_>, farewell: Farewell) {
        let version = self.plan.version;
        let Some(conn) = &mut self.conn else { return };
        let since = conn.since(env);
        env.trace.line(env.oracle, || format!("{} abandons its connection: {farewell:?}", self.name));
        let overdue = conn.is_overdue(env.oracle.now) || env.stopping;
        let over = match farewell {
            Farewell::Nothing => Over::Replaced,
            Farewell::Close => {
                env.world.close(conn.endpoint);
                Over::Lost
            }
            Farewell::Reset => {
                env.world.reset(conn.endpoint);
                Over::Lost
            }
            Farewell::Disconnect => {
                conn.say(&mut self.sums, packet::disconnect(version, 0, None));
                let bytes: Vec<u8> = conn.out.drain(..).collect();
                let written = env.world.write(conn.endpoint, &bytes);
                let whole = written == Some(bytes.len()) && !env.world.is_failed(conn.endpoint) && !overdue;
                if whole { Over::Clean } else { Over::Unclear }
            }
        };
        self.gone(env, over, since);
    }

    /// The connection is over for the client.
    pub(super) fn gone(&mut self, env: &mut Env<'_>, how: Over, since: (Millis, Tick)) {
        let Some(conn) = self.conn.take() else { return };
        if conn.accepted {
            env.oracle.over(conn.ix, how, since);
            let ends = if self.plan.version.is_v5() { conn.plan.expiry_s == 0 } else { conn.plan.clean };
            if ends {
                self.forget(); // the session was over with its connection
            }
        } else {
            match conn.refused {
                true => env.oracle.connect_refused(conn.ix),
                false => self.unanswered = Some((conn.ix, conn.endpoint)),
            }
            self.must_clean |= conn.plan.clean;
        }
        let keep_alive_until = match conn.plan.keep_alive_s {
            0 => Millis::MAX,
            seconds => conn.confirmed + Millis::from(seconds) * 1500,
        };
        self.left.push(Left {
            endpoint: conn.endpoint,
            conn: conn.ix,
            keep_alive_until,
            closed: false,
            lossy: false,
        });
    }

    pub(super) fn offend(&mut self, env: &mut Env<'_>, kind: u8) {
        let version = self.plan.version;
        let Some(conn) = &mut self.conn else { return };
        env.trace.line(env.oracle, || format!("{} offends ({kind})", self.name));
        let publish = |topic: &str| Publish {
            dup: false,
            qos: 0,
            retain: false,
            topic: topic.into(),
            packet_id: 0,
            properties: Properties::new(),
            payload: Vec::new(),
        };
        let bytes = match kind {
            1 => packet::publish(version, &publish("a/#")),
            // Reserved bits; in 3.1 they mean nothing.
            2 if version != Version::V31 => vec![0x80, 0x06, 0, 1, 0, 1, b'a', 0],
            0 | 2 => vec![0x00, 0x00],
            3 => vec![0x36, 0x05, 0, 1, b'a', 0, 1],
            4 => vec![0x30, 0x00],
            _ => packet::connect(&packet::ConnectPacket {
                version,
                client_id: &self.name,
                clean_start: true,
                keep_alive_s: 0,
                properties: Properties::new(),
                will: None,
            }),
        };
        conn.queue.clear();
        conn.say(&mut self.sums, bytes);
        conn.offended = true;
        self.sums.offences += 1;
        let (ix, since) = (conn.ix, conn.since(env));
        env.oracle.over(ix, Over::Lost, since);
    }
}
