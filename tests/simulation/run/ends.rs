//! How a run ends: everybody leaves and nothing is left, and all shards stop.

use super::*;

impl Run<'_> {
    /// Everybody comes back for what is owed, then leaves for good; nothing may be left in the broker.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.rest_and_check()?;
        self.note(|| "-- everybody comes back".into());
        for client in 0..self.watcher {
            if !self.clients[client].is_connected() {
                let version = self.clients[client].version();
                let plan = self
                    .connection(if version == Version::V311 { u32::MAX } else { 0 }, version == Version::V31);
                self.with(client, |client, env| client.connect(env, plan));
            }
        }
        self.rest_and_check()?;
        self.note(|| "-- everybody leaves".into());
        self.cluster.world.borrow_mut().faults.reset = Odds::NEVER;
        for clean in [false, true] {
            for client in 0..self.watcher {
                if clean {
                    let plan = self.connection(0, true);
                    self.with(client, |client, env| client.connect(env, plan));
                }
            }
            self.rest()?;
            for client in 0..self.watcher {
                self.with(client, |client, env| client.leave(env, Leave::Disconnect));
            }
            self.rest()?;
        }
        self.clear_store()?;
        self.advance(Millis::from(self.plan.limits.session_expiry_max_s) * 1000 + 3_600_000);
        self.rest()?;
        self.nothing_is_left();
        self.sound()
    }

    pub(super) fn clear_store(&mut self) -> Result<()> {
        let watcher = self.watcher;
        let plan = self.connection(0, true);
        self.with(watcher, |client, env| client.connect(env, plan));
        self.rest()?;
        for topic in 0..TOPICS.len() {
            let plan = PublishPlan {
                topic,
                qos: 1,
                retain: true,
                clear: true,
                expiry_s: None,
                size: 0,
                alias: false,
                property: true,
                count: 1,
            };
            self.with(watcher, |client, env| client.step(env, &What::Publish(plan)));
        }
        self.rest()?;
        self.with(watcher, |client, env| client.leave(env, Leave::Disconnect));
        self.rest()
    }

    pub(super) fn nothing_is_left(&mut self) {
        // Or whoever was to clear the store was not let in.
        let sys = self.plan.options.sys_interval_ms > 0 || self.plan.is_short_of_sessions();
        for (at, live) in self.cluster.live().into_iter().enumerate() {
            let retained = if sys { 0 } else { live.retained };
            let left = [
                live.connections,
                live.sessions,
                live.subscriptions,
                live.session_bytes,
                live.subscription_bytes,
                retained,
                live.buffers,
                live.timers,
                live.mesh,
            ];
            self.oracle.check(Checker::Left, left.iter().all(|count| *count == 0), |_| {
                format!("shard {at} keeps {live:?} although nobody is left")
            });
        }
        let gauges = self.cluster.gauges_left();
        self.oracle
            .check(Checker::Left, gauges.is_empty(), |_| format!("gauges are not back at zero: {gauges:?}"));
        let open = self.cluster.world.borrow().open_sockets();
        self.oracle
            .check(Checker::Left, open == 0, |_| format!("{open} sockets are open although nobody is left"));
    }

    /// Half of the clients connect anew, so that a stop finds connections on every part of their way.
    pub(super) fn come_back_at_once(&mut self) -> Result<()> {
        for client in 0..self.watcher {
            if self.rng.below(2) == 0 {
                continue;
            }
            let clean = self.clients[client].version() == Version::V31;
            let plan = self.connection(if clean { 0 } else { 60 }, clean);
            let what = match self.clients[client].is_connected() {
                true => What::TakeOver(Farewell::Nothing, plan),
                false => What::Connect(plan),
            };
            self.with(client, |client, env| client.step(env, &what));
            let gap = self.rng.below(30);
            self.work(gap)?;
        }
        Ok(())
    }

    /// All shards are told to stop, one after the other, while everything goes on.
    pub(super) fn stop(&mut self, crash_after: Option<usize>) -> Result<()> {
        if self.plan.stop_at_once {
            self.come_back_at_once()?;
        }
        self.note(|| "-- stop".into());
        self.stopping = true;
        for at in 0..self.cluster.len() {
            self.figures.stops_in_hand_off += u64::from(self.cluster.is_handing_off());
            self.cluster.stop(at);
            let gap = self.rng.below(self.plan.gap + 1);
            self.work(gap)?;
        }
        let reset = self.cluster.world.borrow().faults.reset;
        self.resting = true;
        self.cluster.world.borrow_mut().faults.reset = Odds::NEVER;
        let result = self.until_stopped(crash_after.unwrap_or(usize::MAX));
        self.cluster.world.borrow_mut().faults.reset = reset;
        result
    }

    /// Until all shards have ended, or so many rounds were.
    pub(super) fn until_stopped(&mut self, rounds_wanted: usize) -> Result<()> {
        let mut rounds = 0;
        let latest = self.oracle.now + 15_000;
        while !self.cluster.is_stopped() && rounds < rounds_wanted {
            let crashes = self.figures.crashes;
            self.tend_data()?;
            if self.figures.crashes > crashes {
                (0..self.cluster.len()).for_each(|at| self.cluster.stop(at));
            }
            let happened = self.round();
            self.sound()?;
            rounds += 1;
            if rounds > ROUNDS_MAX || self.oracle.now > latest {
                let why = format!(
                    "happened {happened}, quiet {}, now {} {:?}",
                    self.cluster.is_quiet(self.oracle.now),
                    self.oracle.now,
                    self.cluster.world.borrow().unquiet()
                );
                return Err(Failure::Stuck(format!(
                    "the shards do not stop ({why}): {}",
                    self.cluster.threads()
                )));
            }
            if !happened && self.cluster.is_quiet(self.oracle.now) {
                match self.cluster.next_deadline() {
                    Some(at) if at > self.oracle.now && at < latest => self.advance(at - self.oracle.now),
                    _ => self.advance(1_000),
                }
            }
        }
        if !self.cluster.is_obeyed() && self.cluster.is_stopped() {
            return Err(Failure::Stuck("an order has no answer, and the shards have ended".to_owned()));
        }
        self.sound()
    }
}
