//! What a run has besides where its shards have a data directory.

use super::*;
use crate::packet;

/// A data directory, and how the run ends.
#[derive(Clone, Debug)]
pub struct DataPlan {
    pub segment_bytes: u64,
    pub grace_ms: u64,
    /// Commits are flushed, and crashes may be losses of power.
    pub power: bool,
    /// Per look: segments are made.
    pub keeps: Odds,
    /// After each turn the log is compared with what is in memory.
    pub is_mirrored: bool,
    pub ending: Ending,
    pub at_answers: AtAnswers,
}

/// Crashes at the moment when a client has read an acknowledgement: what it promises is on disk by then, or lost.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct AtAnswers {
    /// Of these types.
    pub packets: &'static [u8],
    /// Per read in which one of them came.
    pub odds: Odds,
}

impl AtAnswers {
    /// None in a quarter of the runs.
    fn draw(rng: &mut Rng) -> AtAnswers {
        let packets: [&[u8]; 7] = [
            &[packet::CONNACK],
            &[packet::PUBACK],
            &[packet::PUBACK],
            &[packet::PUBREC],
            &[packet::PUBCOMP],
            &[packet::SUBACK],
            &[packet::PUBACK, packet::PUBREC, packet::SUBACK],
        ];
        let packets = *rng.pick(&packets);
        AtAnswers { packets, odds: *rng.pick(&[Odds::NEVER, Odds(1_000), Odds(4_000), Odds(10_000)]) }
    }

    pub fn happen(self) -> bool {
        self.odds != Odds::NEVER
    }

    /// Puts more of what is acknowledged between the steps: few topics, and many who wait for them.
    fn add_steps(self, rng: &mut Rng, clients: &[ClientPlan], steps: &mut Vec<(What, Client)>) {
        let begun = clients.len().min(steps.len());
        for _ in 0..rng.below(steps.len()) {
            let at = rng.between(begun, steps.len());
            let topic = *rng.pick(&MET);
            let what = if rng.below(4) == 0 {
                let filters = vec![(*rng.pick(&CROWDED), rng.between(1, 2) as u8)];
                What::Subscribe { filters, identifier: None }
            } else {
                What::Publish(PublishPlan {
                    topic,
                    qos: if self.packets.contains(&packet::PUBACK) { 1 } else { rng.between(1, 2) as u8 },
                    retain: rng.below(4) == 0,
                    clear: false,
                    expiry_s: None,
                    size: 0,
                    alias: false,
                    property: false,
                    count: rng.between(1, 3),
                })
            };
            steps.insert(at, (what, rng.below(clients.len())));
        }
    }
}

/// What comes before the last stop of a run with a data directory.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    Nothing,
    /// A stop in order, and another start.
    StartAgain,
    /// A crash in the middle of a stop, and another start.
    CrashInStop,
}

impl DataPlan {
    /// Puts crashes between the steps, and clients that come back to their sessions.
    pub(super) fn draw(
        rng: &mut Rng,
        (shards, shards_wanted): (u16, Option<u16>),
        clients: &[ClientPlan],
        steps: &mut Vec<(What, Client)>,
    ) -> DataPlan {
        let power = rng.below(4) > 0;
        let connect = |rng: &mut Rng, client: &ClientPlan| ConnectPlan {
            shard: rng.below(usize::from(shards)) as u16,
            clean: client.version == Version::V31,
            expiry_s: match client.version {
                Version::V5 => *rng.pick(&[60, 4000, u32::MAX]),
                Version::V311 => u32::MAX,
                Version::V31 => 0,
            },
            keep_alive_s: 0,
            will: None,
            receive_maximum: None,
            topic_alias_maximum: 0,
            packet_size_maximum: None,
            eager: rng.below(3) == 0,
        };
        for (what, client) in steps.iter_mut() {
            if let What::Connect(plan) | What::TakeOver(_, plan) = what
                && rng.below(2) == 0
            {
                let kept = connect(rng, &clients[*client]);
                (plan.clean, plan.expiry_s) = (kept.clean, kept.expiry_s);
            }
        }
        let begun = clients.len().min(steps.len());
        for _ in 0..rng.below(5) {
            let at = rng.between(begun, steps.len());
            let mut added = Vec::new();
            // Now and then the next one comes while the first start is under way.
            for _ in 0..1 + usize::from(rng.below(4) == 0) {
                let shards = shards_wanted.unwrap_or(*rng.pick(&[1, 2, 3, 4, shards]));
                added.push((What::Crash { power: power && rng.below(3) > 0, shards }, 0));
            }
            for (client, plan) in clients.iter().enumerate() {
                if rng.below(4) > 0 {
                    added.push((What::Connect(connect(rng, plan)), client));
                }
            }
            steps.splice(at..at, added);
        }
        let plan = DataPlan {
            segment_bytes: 64 * 1024,
            grace_ms: *rng.pick(&[0, 40, 2_000]),
            power,
            keeps: *rng.pick(&[Odds(9_000), Odds(2_000), Odds(300)]),
            is_mirrored: rng.below(2) == 0,
            ending: *rng.pick(&[Ending::Nothing, Ending::StartAgain, Ending::CrashInStop]),
            at_answers: AtAnswers::draw(rng),
        };
        if plan.at_answers.happen() {
            plan.at_answers.add_steps(rng, clients, steps);
        }
        plan
    }
}

impl Plan {
    /// The most shards that a cluster of the run has.
    pub fn shards_max(&self) -> u16 {
        let crashes = self.steps.iter().filter_map(|step| match step.what {
            What::Crash { shards, .. } => Some(shards),
            _ => None,
        });
        crashes.fold(self.shards, u16::max)
    }

    /// Messages that wait in a queue, if their number is all that bounds it, and they do not go elsewhere.
    pub fn queue_holds(&self) -> Option<u64> {
        let limits = &self.limits;
        let by_number = limits.queue_bytes_max >= 1 << 20
            && self.memory[Class::Queue as usize] >= 1 << 26
            && limits.queue_full == QueueFull::DropNewest
            && limits.share_wait_ms == 0;
        by_number.then_some(limits.queue_messages_max.into())
    }

    /// Whether there may be no room for a session or a subscription.
    pub fn is_short_of_sessions(&self) -> bool {
        let short = |class: Class| self.memory[class as usize] < SESSIONS_AMPLE;
        // With a full disk there is none for what would be kept.
        let disk = self.data.is_some() && self.faults.disk.no_space != Odds::NEVER;
        short(Class::Session) || short(Class::Subscription) || disk
    }
}
