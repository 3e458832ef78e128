//! The payload of every message: a header of exactly 16 bytes, then a seeded pattern.
//!
//! Layout of the header, big-endian:
//!
//! | bytes | field | wraps |
//! |---|---|---|
//! | 0..2 | run: tells this run's messages from those of another | random, 1 in 65,536 alike; the topic prefix tells them apart as well |
//! | 2..5 | stream: one publisher on one topic | never: at most 2^24 streams in a run |
//! | 5..9 | sequence within the stream, from 0 | after 2^32; receivers extend it to 64 bits, which is right as long as a message is less than 2^31 away from the one expected |
//! | 9..16 | due time, nanoseconds since the run's clock began | after 2^56 ns (2.3 years) |
//!
//! The length of a payload and its pattern follow from (seed, stream, sequence), so a receiver can check every
//! byte without having seen the message before.

/// Bytes of the header.
pub const HEADER_LEN: usize = 16;
/// Streams that the header can tell apart.
pub const STREAMS_MAX: u64 = 1 << 24;
const DUE_MASK: u64 = (1 << 56) - 1;
/// The pattern repeats after this many bytes; a power of two.
const PERIOD: usize = 4096;

/// Bounded share of payload sizes: `weight` out of the sum of all weights.
#[derive(Clone, PartialEq, Debug)]
pub struct Choice {
    pub size: usize,
    pub weight: u64,
}

/// How large payloads are.
#[derive(Clone, PartialEq, Debug)]
pub enum Sizes {
    Fixed(usize),
    /// Each size between both bounds alike, bounds included.
    Uniform(usize, usize),
    Mix(Vec<Choice>),
}

impl Sizes {
    /// Reads `64`, `64..1024` or `64:90,1024:9,65536:1` (size:weight).
    pub fn parse(text: &str) -> Result<Sizes, String> {
        let number =
            |s: &str| s.trim().parse::<usize>().map_err(|_| format!("'{s}' is not a number of bytes"));
        if let Some((low, high)) = text.split_once("..") {
            let (low, high) = (number(low)?, number(high.trim_start_matches('='))?);
            if low > high {
                return Err(format!("the range {text} is empty"));
            }
            return Ok(Sizes::Uniform(low, high));
        }
        if !text.contains(':') {
            return Ok(Sizes::Fixed(number(text)?));
        }
        let mut choices = Vec::new();
        for part in text.split(',') {
            let (size, weight) = part.split_once(':').ok_or(format!("'{part}' is not size:weight"))?;
            let weight = weight.trim().parse().map_err(|_| format!("'{weight}' is not a weight"))?;
            if weight == 0 || weight > 1_000_000 {
                return Err(format!("the weight {weight} is not between 1 and 1000000"));
            }
            choices.push(Choice { size: number(size)?, weight });
        }
        Ok(Sizes::Mix(choices))
    }

    pub fn min(&self) -> usize {
        match self {
            Sizes::Fixed(n) | Sizes::Uniform(n, _) => *n,
            Sizes::Mix(choices) => choices.iter().map(|c| c.size).min().unwrap_or(0),
        }
    }

    pub fn max(&self) -> usize {
        match self {
            Sizes::Fixed(n) | Sizes::Uniform(_, n) => *n,
            Sizes::Mix(choices) => choices.iter().map(|c| c.size).max().unwrap_or(0),
        }
    }

    #[inline]
    fn pick(&self, random: u64) -> usize {
        match self {
            Sizes::Fixed(n) => *n,
            Sizes::Uniform(low, high) => low + (random % (high - low + 1) as u64) as usize,
            Sizes::Mix(choices) => {
                let mut left = random % choices.iter().map(|c| c.weight).sum::<u64>();
                for choice in choices {
                    if left < choice.weight {
                        return choice.size;
                    }
                    left -= choice.weight;
                }
                unreachable!("the remainder is below the sum of the weights")
            }
        }
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sizes::Fixed(n) => write!(f, "{n}"),
            Sizes::Uniform(low, high) => write!(f, "{low}..{high}"),
            Sizes::Mix(choices) => {
                let parts: Vec<_> = choices.iter().map(|c| format!("{}:{}", c.size, c.weight)).collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

/// What the header of a received message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub stream: u32,
    pub sequence: u32,
    pub due_ns: u64,
}

/// Writes and checks the payloads of one run.
pub struct Payloads {
    run: u16,
    seed: u64,
    sizes: Sizes,
    checked: bool,
    /// The pattern twice, so that any offset is followed by a whole period.
    pattern: Vec<u8>,
}

/// A step of splitmix64: a cheap mix of 64 bits.
#[inline]
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

impl Payloads {
    /// With `checked` false payloads carry no header and may be shorter than one.
    pub fn new(run: u16, seed: u64, sizes: Sizes, checked: bool) -> Payloads {
        let mut pattern: Vec<u8> = (0..PERIOD as u64).map(|i| mix(seed ^ i << 8) as u8).collect();
        pattern.extend_from_within(..);
        Payloads { run, seed, sizes, checked, pattern }
    }

    #[inline]
    fn random(&self, stream: u32, sequence: u32) -> u64 {
        mix(self.seed ^ u64::from(stream) << 32 ^ u64::from(sequence))
    }

    /// The length that all payloads have, if they have one.
    pub fn fixed_len(&self) -> Option<usize> {
        match self.sizes {
            Sizes::Fixed(n) => Some(n),
            Sizes::Uniform(..) | Sizes::Mix(_) => None,
        }
    }

    /// Length of this message's payload.
    #[inline]
    pub fn len(&self, stream: u32, sequence: u64) -> usize {
        match self.sizes {
            Sizes::Fixed(n) => n,
            _ => self.sizes.pick(self.random(stream, sequence as u32)),
        }
    }

    /// Appends the payload, `self.len(stream, sequence)` bytes.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>, stream: u32, sequence: u64, due_ns: u64) {
        let sequence = sequence as u32;
        let random = self.random(stream, sequence);
        let mut rest = match self.sizes {
            Sizes::Fixed(n) => n,
            _ => self.sizes.pick(random),
        };
        if self.checked {
            let word = u128::from(self.run) << 112
                | u128::from(stream) << 88
                | u128::from(sequence) << 56
                | u128::from(due_ns & DUE_MASK);
            out.extend_from_slice(&word.to_be_bytes());
            rest -= HEADER_LEN;
        }
        let offset = random as usize >> 48 & (PERIOD - 1);
        if rest <= PERIOD {
            return out.extend_from_slice(&self.pattern[offset..offset + rest]);
        }
        while rest > 0 {
            let n = rest.min(PERIOD);
            out.extend_from_slice(&self.pattern[offset..offset + n]);
            rest -= n;
        }
    }

    /// The header, if it is one of this run.
    #[inline]
    pub fn header(&self, payload: &[u8]) -> Option<Header> {
        let head: &[u8; HEADER_LEN] = payload.first_chunk()?;
        let word = u128::from_be_bytes(*head);
        if (word >> 112) as u16 != self.run {
            return None;
        }
        Some(Header {
            stream: (word >> 88) as u32 & 0xFF_FFFF,
            sequence: (word >> 56) as u32,
            due_ns: word as u64 & DUE_MASK,
        })
    }

    /// Whether length and pattern are those of this message.
    #[inline]
    pub fn intact(&self, payload: &[u8], header: &Header) -> bool {
        let random = self.random(header.stream, header.sequence);
        let len = match self.sizes {
            Sizes::Fixed(n) => n,
            _ => self.sizes.pick(random),
        };
        if payload.len() != len {
            return false;
        }
        let offset = random as usize >> 48 & (PERIOD - 1);
        let pattern = &payload[HEADER_LEN..];
        if pattern.len() <= PERIOD {
            return *pattern == self.pattern[offset..offset + pattern.len()];
        }
        pattern.chunks(PERIOD).all(|chunk| chunk == &self.pattern[offset..offset + chunk.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_sixteen_bytes_as_documented() {
        let payloads = Payloads::new(0xABCD, 1, Sizes::Fixed(16), true);
        let mut out = Vec::new();
        payloads.write(&mut out, 0x01_0203, 0x9_0405_0607, 0x08_090A_0B0C_0D0E);
        assert_eq!(out, [0xAB, 0xCD, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xA, 0xB, 0xC, 0xD, 0xE]);
        let header = payloads.header(&out).unwrap();
        assert_eq!(header, Header { stream: 0x01_0203, sequence: 0x0405_0607, due_ns: 0x08_090A_0B0C_0D0E });
        assert!(payloads.intact(&out, &header));
    }

    #[test]
    fn every_changed_bit_and_every_changed_length_shows() {
        for sizes in [Sizes::Fixed(64), Sizes::Uniform(16, 9000), Sizes::parse("16:1,5000:1").unwrap()] {
            let payloads = Payloads::new(7, 3, sizes, true);
            for sequence in 0..20 {
                let mut out = Vec::new();
                payloads.write(&mut out, 5, sequence, 99);
                assert_eq!(out.len(), payloads.len(5, sequence));
                let header = payloads.header(&out).unwrap();
                assert!(payloads.intact(&out, &header));
                for at in (HEADER_LEN..out.len()).step_by(61) {
                    out[at] ^= 0x10;
                    assert!(!payloads.intact(&out, &header));
                    out[at] ^= 0x10;
                }
                assert!(!payloads.intact(&out[..out.len() - 1], &header));
                out.push(0);
                assert!(!payloads.intact(&out, &header));
            }
        }
    }

    #[test]
    fn messages_of_another_run_are_told_apart() {
        let mut out = Vec::new();
        Payloads::new(1, 1, Sizes::Fixed(20), true).write(&mut out, 1, 1, 1);
        assert_eq!(Payloads::new(2, 1, Sizes::Fixed(20), true).header(&out), None);
        assert_eq!(Payloads::new(1, 1, Sizes::Fixed(20), true).header(&out[..15]), None);
    }

    #[test]
    fn sizes_follow_their_distribution() {
        let payloads = Payloads::new(1, 9, Sizes::parse("100:3,200:1").unwrap(), true);
        let small = (0..4000).filter(|&i| payloads.len(0, i) == 100).count();
        assert!((2900..3100).contains(&small), "{small}");
        let uniform = Payloads::new(1, 9, Sizes::parse("16..19").unwrap(), true);
        let mut seen = [0; 4];
        (0..4000).for_each(|i| seen[uniform.len(0, i) - 16] += 1);
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
        assert!(Sizes::parse("9..3").is_err() && Sizes::parse("a").is_err() && Sizes::parse("3:0").is_err());
    }
}
