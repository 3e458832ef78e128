//! The simulator's only source of randomness: SplitMix64, so that one number replays a run on any machine.

/// A probability in parts of [`Odds::WHOLE`].
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Odds(pub u32);

impl Odds {
    pub const WHOLE: u32 = 10_000;
    pub const NEVER: Odds = Odds(0);
}

/// SplitMix64. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A generator of its own for one part of a run, so that more draws in one part do not move another.
    pub fn fork(&mut self) -> Rng {
        Rng(self.bits())
    }

    /// Below `bound`, which is not 0. The bias is below 2^-32 for the small bounds in use.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0);
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    pub fn happens(&mut self, odds: Odds) -> bool {
        odds.0 > 0 && self.below(Odds::WHOLE as usize) < odds.0 as usize
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Never, rare, or common: a third of the draws is never, the others spread evenly over the orders of magnitude
    /// from one in a thousand up to `most`.
    pub fn odds(&mut self, most: u32) -> Odds {
        if self.below(3) == 0 {
            return Odds::NEVER;
        }
        let (low, high) = (10f64.ln(), f64::from(most.max(11)).ln());
        let part = self.below(1 << 20) as f64 / f64::from(1 << 20);
        Odds((low + (high - low) * part).exp() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_bounds_hold() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        let mut seen = [0; 5];
        for _ in 0..10_000 {
            assert_eq!(a.bits(), b.bits());
            seen[a.below(5)] += 1;
            assert!((3..=4).contains(&b.between(3, 4)));
        }
        assert!(seen.iter().all(|count| (1_700..2_300).contains(count)), "{seen:?}");
        assert_ne!(Rng::new(1).bits(), Rng::new(2).bits());
    }

    #[test]
    fn odds_happen_as_often_as_they_say() {
        let mut rng = Rng::new(1);
        let hits = (0..100_000).filter(|_| rng.happens(Odds(2_500))).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| !rng.happens(Odds::NEVER)));
        let drawn: Vec<u32> = (0..300).map(|_| rng.odds(5_000).0).collect();
        assert!(drawn.iter().all(|&odds| odds <= 5_000));
        assert!(drawn.contains(&0) && drawn.iter().any(|&odds| odds > 1_000));
    }
}
