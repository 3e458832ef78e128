//! When each message of an open loop is due.
//!
//! The rate is a piecewise linear function of time; the count of messages due by time t is its integral N(t). A
//! message's place x on that axis becomes a time by inverting N. A constant schedule has its messages at x = 1, 2, 3 …;
//! a Poisson schedule at sums of exponential gaps of mean 1, which makes a Poisson process of that changing rate.

use crate::payload::mix;

/// A stretch of time in which the rate changes linearly.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Segment {
    pub seconds: f64,
    /// Messages per second at its beginning and at its end.
    pub from: f64,
    pub to: f64,
}

/// How gaps between messages are spread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrivals {
    Constant,
    Poisson,
}

/// The rate over the whole run, all workers together.
#[derive(Clone, PartialEq, Debug)]
pub struct Schedule {
    pub segments: Vec<Segment>,
    pub arrivals: Arrivals,
}

impl Schedule {
    pub fn constant(rate: f64, seconds: f64, arrivals: Arrivals) -> Schedule {
        Schedule { segments: vec![Segment { seconds, from: rate, to: rate }], arrivals }
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.segments.iter().map(|s| s.seconds).sum()
    }

    /// Messages due before `seconds`.
    pub fn due_before(&self, seconds: f64) -> f64 {
        let mut left = seconds;
        let mut due = 0.0;
        for s in &self.segments {
            let t = left.clamp(0.0, s.seconds);
            due += s.from * t + (s.to - s.from) * t * t / (2.0 * s.seconds);
            left -= s.seconds;
        }
        due
    }

    /// This schedule's part for one worker out of several.
    pub fn pacer(&self, share: f64, phase: f64, publishers: u32, seed: u64) -> Pacer {
        let mut pacer = Pacer {
            segments: self.segments.clone(),
            arrivals: self.arrivals,
            share,
            publishers: u64::from(publishers),
            random: mix(seed),
            count: 0,
            x: 0.0,
            segment: 0,
            segment_began: 0.0,
            segment_x: 0.0,
            due_ns: None,
        };
        pacer.step(phase);
        pacer
    }
}

/// One worker's messages in order of due time.
pub struct Pacer {
    segments: Vec<Segment>,
    arrivals: Arrivals,
    share: f64,
    publishers: u64,
    random: u64,
    count: u64,
    x: f64,
    segment: usize,
    /// Time and place at which the current segment begins.
    segment_began: f64,
    segment_x: f64,
    due_ns: Option<u64>,
}

impl Pacer {
    /// When the next message is due, in nanoseconds after the start; `None` once the schedule is over.
    #[inline]
    pub fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// Takes the next message: the local number of the publisher that has to send it.
    #[inline]
    pub fn take(&mut self) -> u32 {
        let gap = match self.arrivals {
            Arrivals::Constant => 1.0,
            Arrivals::Poisson => -(1.0 - self.uniform()).ln(),
        };
        let publisher = match self.arrivals {
            Arrivals::Constant => self.count % self.publishers,
            Arrivals::Poisson => {
                self.random = mix(self.random);
                self.random % self.publishers
            }
        };
        self.count += 1;
        self.step(gap);
        publisher as u32
    }

    /// A number in 0..1.
    fn uniform(&mut self) -> f64 {
        self.random = mix(self.random);
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn step(&mut self, gap: f64) {
        self.x += gap;
        self.due_ns = None;
        while let Some(s) = self.segments.get(self.segment) {
            let (from, to) = (s.from * self.share, s.to * self.share);
            let whole = (from + to) / 2.0 * s.seconds;
            let left = self.x - self.segment_x;
            if left < whole {
                let slope = (to - from) / s.seconds;
                // The root of slope/2 t² + from t = left, in the form that also holds for slope 0.
                let root = (from * from + 2.0 * slope * left).max(0.0).sqrt();
                let t = if from + root > 0.0 { 2.0 * left / (from + root) } else { 0.0 };
                self.due_ns = Some(((self.segment_began + t.min(s.seconds)) * 1e9) as u64);
                return;
            }
            self.segment += 1;
            self.segment_began += s.seconds;
            self.segment_x += whole;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(schedule: &Schedule, share: f64) -> Vec<u64> {
        let mut pacer = schedule.pacer(share, 0.5, 3, 1);
        let mut dues = Vec::new();
        while let Some(due) = pacer.due_ns() {
            dues.push(due);
            assert!(pacer.take() < 3);
        }
        dues
    }

    #[test]
    fn a_constant_rate_has_even_gaps_and_the_right_count() {
        let dues = all(&Schedule::constant(1000.0, 2.0, Arrivals::Constant), 1.0);
        assert_eq!(dues.len(), 2000);
        assert!(dues.windows(2).all(|w| (w[1] - w[0]).abs_diff(1_000_000) <= 1));
    }

    #[test]
    fn ramps_and_shares_add_up() {
        let segments = vec![
            Segment { seconds: 2.0, from: 0.0, to: 1000.0 },
            Segment { seconds: 1.0, from: 1000.0, to: 1000.0 },
            Segment { seconds: 1.0, from: 5000.0, to: 0.0 },
        ];
        let schedule = Schedule { segments, arrivals: Arrivals::Constant };
        assert!((schedule.due_before(1.0) - 250.0).abs() < 1e-9);
        assert!((schedule.due_before(99.0) - 4500.0).abs() < 1e-9);
        let dues = all(&schedule, 0.5);
        assert!(dues.len().abs_diff(2250) <= 1);
        assert!(dues.is_sorted());
        let first_second = dues.iter().filter(|&&d| d < 1_000_000_000).count();
        assert!(first_second.abs_diff(125) <= 1, "{first_second}");
    }

    #[test]
    fn poisson_has_the_rate_and_the_spread_of_its_name() {
        let dues = all(&Schedule::constant(10_000.0, 5.0, Arrivals::Poisson), 1.0);
        assert!(dues.len().abs_diff(50_000) < 1000, "{}", dues.len());
        let gaps: Vec<f64> = dues.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03);
    }
}
