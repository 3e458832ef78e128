//! What became of each message of one stream at one receiver: lost, duplicated, out of order.
//!
//! Pure. A message that does not come in its turn opens a gap; a message that fills a gap was late, one that fills
//! none was there before. What is still open at the end is lost.

/// Gaps remembered for one stream at one receiver. Beyond this the oldest gap is closed for good: what still comes
/// for it counts as duplicated instead of out of order, and it stays lost.
const GAPS_MAX: usize = 65_536;

/// Counts of faults, added up over receivers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Faults {
    pub lost: u64,
    pub duplicated: u64,
    pub disordered: u64,
    pub corrupted: u64,
    /// Messages that this receiver never subscribed to.
    pub stray: u64,
    /// Sessions that should have been kept and were not.
    pub sessions_lost: u64,
}

impl Faults {
    pub fn any(&self) -> bool {
        *self != Faults::default()
    }

    pub fn add(&mut self, other: &Faults) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.disordered += other.disordered;
        self.corrupted += other.corrupted;
        self.stray += other.stray;
        self.sessions_lost += other.sessions_lost;
    }
}

/// How a message arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Arrival {
    /// In its turn.
    Next,
    /// After `missed` messages that have not arrived.
    Ahead { missed: u64 },
    /// It had been missed before.
    Late,
    /// It had arrived before.
    Again,
}

/// The messages of one stream, as one receiver (or one share group) saw them.
#[derive(Clone, Default, Debug)]
pub struct Track {
    /// The sequence that comes next; everything below has arrived or stands in `gaps`.
    next: u64,
    /// Ranges `start..end` that were skipped, ascending; an empty list owns no memory.
    gaps: Vec<(u64, u64)>,
}

impl Track {
    /// Takes note of an arrival; `sequence` holds the low 32 bits.
    #[inline]
    pub fn arrive(&mut self, sequence: u32) -> Arrival {
        let ahead = sequence.wrapping_sub(self.next as u32) as i32;
        if ahead == 0 {
            self.next += 1;
            return Arrival::Next;
        }
        self.arrive_out_of_turn(i64::from(ahead))
    }

    /// Whether a sequence lies near the one expected, as that of a message damaged elsewhere would.
    pub fn plausible(&self, sequence: u32) -> bool {
        (sequence.wrapping_sub(self.next as u32) as i32).unsigned_abs() < 1024
    }

    #[cold]
    fn arrive_out_of_turn(&mut self, ahead: i64) -> Arrival {
        let gaps = &mut self.gaps;
        if ahead > 0 {
            if gaps.len() == GAPS_MAX {
                gaps.remove(0);
            }
            let missed = ahead as u64;
            gaps.push((self.next, self.next + missed));
            self.next += missed + 1;
            return Arrival::Ahead { missed };
        }
        let Some(sequence) = self.next.checked_add_signed(ahead) else { return Arrival::Again };
        let at = gaps.partition_point(|&(_, end)| end <= sequence);
        let Some(&(start, end)) = gaps.get(at).filter(|gap| gap.0 <= sequence) else { return Arrival::Again };
        match (start == sequence, end == sequence + 1) {
            (true, true) => drop(gaps.remove(at)),
            (true, false) => gaps[at].0 += 1,
            (false, true) => gaps[at].1 -= 1,
            (false, false) => {
                gaps[at].1 = sequence;
                gaps.insert(at + 1, (sequence + 1, end));
            }
        }
        Arrival::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn plain_faults() {
        let mut track = Track::default();
        assert_eq!(track.arrive(0), Arrival::Next);
        assert_eq!(track.arrive(0), Arrival::Again);
        assert_eq!(track.arrive(3), Arrival::Ahead { missed: 2 });
        assert_eq!(track.arrive(1), Arrival::Late);
        assert_eq!(track.arrive(1), Arrival::Again);
        assert_eq!(track.arrive(4), Arrival::Next);
        assert_eq!(track.arrive(2), Arrival::Late);
    }

    #[test]
    fn the_sequence_wraps_at_32_bits() {
        let mut track = Track { next: (1 << 32) - 1, gaps: Vec::new() };
        assert_eq!(track.arrive(u32::MAX), Arrival::Next);
        assert_eq!(track.arrive(0), Arrival::Next);
        assert_eq!(track.arrive(u32::MAX), Arrival::Again);
        assert_eq!(track.arrive(2), Arrival::Ahead { missed: 1 });
        assert_eq!(track.next, (1 << 32) + 3);
    }

    /// The naive way: a set of everything seen.
    #[test]
    fn agrees_with_a_set_of_everything_seen() {
        let mut random = 1u64;
        let mut track = Track::default();
        let (mut seen, mut highest) = (HashSet::new(), None::<u64>);
        let (mut missed, mut late) = (0, 0);
        for step in 0..200_000u64 {
            random = crate::payload::mix(random);
            let sequence = (step / 2 + random % 40).saturating_sub(20);
            let expected = if !seen.insert(sequence) {
                Arrival::Again
            } else if highest.is_some_and(|h| sequence < h) {
                Arrival::Late
            } else {
                match sequence - highest.map_or(0, |h| h + 1) {
                    0 => Arrival::Next,
                    missed => Arrival::Ahead { missed },
                }
            };
            highest = highest.max(Some(sequence));
            let got = track.arrive(sequence as u32);
            assert_eq!(got, expected, "step {step}");
            match got {
                Arrival::Ahead { missed: n } => missed += n,
                Arrival::Late => late += 1,
                Arrival::Next | Arrival::Again => {}
            }
        }
        assert_eq!(missed - late, track.next - seen.len() as u64);
    }
}
