//! What a run with a data directory does besides: crashes, starts, and the threads beside the shards.

use super::*;

/// Segments that a log may have at rest; a write that fails costs one more.
const SEGMENTS_MAX: u64 = 16;

impl Run<'_> {
    /// The cluster ends, in order or not, and all who were there come back to the next one.
    pub(super) fn start_again(&mut self, ending: Ending) -> Result<()> {
        let crash = (ending == Ending::CrashInStop).then(|| self.rng.below(60));
        self.stop(crash)?;
        let shards = self.cluster.len() as u16;
        match crash {
            Some(_) => {
                self.figures.crashes_in_stop += 1;
                self.crash(self.plan.data.as_ref().is_some_and(|data| data.power), shards)?;
            }
            None => {
                self.figures.starts_again += 1;
                self.crash(false, shards)?;
            }
        }
        (self.stopping, self.resting) = (false, false);
        self.come_back_at_once()?;
        self.rest_and_check()
    }

    /// Everything ends, and another cluster starts on the same disk.
    pub(super) fn crash(&mut self, power: bool, shards: u16) -> Result<()> {
        self.sound()?;
        self.note(|| format!("-- crash ({}), then {shards} shards", if power { "power" } else { "killed" }));
        self.figures.crashes += 1;
        self.figures.crashes_in_start += u64::from(!self.open);
        self.oracle.takeover_may_force |= self.cluster.sum(|c| &c.takeovers_forced_total) > 0;
        for client in 0..self.clients.len() {
            self.with(client, |client, env| client.note_time(env));
        }
        self.oracle.crashed(self.cluster.is_stopped());
        let crash = if power { Crash::Power } else { Crash::Killed };
        self.cluster.crash(self.plan, crash, shards, &mut self.rng, self.oracle.now);
        self.open = false;
        self.orders.begin_anew();
        self.clients.iter_mut().for_each(Client::crashed);
        self.oracle.crashes.shards = self.cluster.len();
        self.oracle.crashes.homes =
            self.clients.iter().map(|client| self.cluster.home(&client.name)).collect();
        // Who was connected learns it at once.
        let rested = std::mem::replace(&mut self.resting, true);
        for client in 0..self.clients.len() {
            self.with(client, |client, env| client.look(env));
        }
        self.resting = rested;
        self.sound()
    }

    /// A client has read something: now and then everything ends at that moment, and who was there comes back.
    pub(super) fn crash_at_answer(&mut self, client: usize) -> Result<()> {
        let answers = self.clients[client].take_answers();
        let Some(data) = &self.plan.data else { return Ok(()) };
        let AtAnswers { packets, odds } = data.at_answers;
        let is_one = answers.iter().any(|packet| packets.contains(packet));
        if !is_one || self.stopping || !self.rng.happens(odds) {
            return Ok(());
        }
        self.figures.crashes_at_answers += 1;
        let power = data.power && self.rng.below(4) > 0;
        self.crash(power, self.cluster.len() as u16)?;
        for client in 0..self.watcher {
            if self.rng.below(4) > 0 {
                let plan = self.connection(u32::MAX, false);
                self.with(client, |client, env| client.connect(env, plan));
            }
        }
        Ok(())
    }

    /// What is done beside the shards, and whether they serve by now.
    pub(super) fn tend_data(&mut self) -> Result<()> {
        let Some(data) = &self.plan.data else { return Ok(()) };
        self.cluster.tend_data(self.resting);
        if self.cluster.has_failed() {
            self.note(|| "-- the disk fails, and the process ends".into());
            let shards = self.cluster.len() as u16;
            return self.crash(false, shards);
        }
        if !self.open && self.cluster.is_open() {
            self.open = true;
            self.note(|| "-- the shards serve".into());
            self.oracle.back(data.grace_ms);
        }
        Ok(())
    }

    /// A turn of a shard, after which its log says what is in its memory.
    pub(super) fn turn(&mut self, at: usize) -> bool {
        let more = self.cluster.turn(at, self.oracle.now);
        if self.plan.data.as_ref().is_some_and(|data| data.is_mirrored) {
            let differs = self.cluster.differs_from_log(at);
            self.oracle.check(Checker::Log, differs.is_none(), |_| {
                format!("shard {at}: {}", differs.unwrap_or_default())
            });
        }
        more
    }

    /// At rest: the files that are there are those that are needed.
    pub(super) fn check_disk(&mut self) {
        let Some(data) = &self.cluster.data else { return };
        let segments = self.cluster.sum(|c| &c.store_segments);
        let most = SEGMENTS_MAX * self.cluster.len() as u64 + self.cluster.sum(|c| &c.store_errors_total);
        let left_over = data.left_over(segments);
        self.oracle.check(Checker::Disk, left_over.is_none(), |_| left_over.unwrap_or_default());
        self.oracle.check(Checker::Disk, segments <= most, |_| {
            format!("{segments} segments are in use, not {most}")
        });
    }
}
