//! What a hash of a password costs: to the broker at each login, and to a thief at each guess.
//!
//! `ringmq passwd --cost` chooses it for new hashes. It stands in the hash, so files may mix costs.

use std::fmt;
use std::str::FromStr;

/// One password may ask for this much memory at most, in KiB. A file that asks for more is wrong, or made to stop the
/// broker.
pub(super) const MEMORY_KIB_MAX: u32 = 1 << 20;
pub(super) const PASSES_MAX: u32 = 64;
pub(super) const LANES_MAX: u32 = 64;

/// The parameters of an argon2id hash.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl Cost {
    /// For long random passwords, which nobody guesses whatever a guess costs. A core lets 1,000 and more in a second.
    pub const DEVICE: Cost = Cost { memory_kib: 1024, passes: 1, lanes: 1 };
    /// For a file with both.
    pub const MIXED: Cost = Cost { memory_kib: 8192, passes: 1, lanes: 1 };
    /// For passwords that people make up: what OWASP advises for argon2id.
    pub const PERSON: Cost = Cost { memory_kib: 19_456, passes: 2, lanes: 1 };

    const NAMED: [(&'static str, Cost); 3] =
        [("device", Cost::DEVICE), ("mixed", Cost::MIXED), ("person", Cost::PERSON)];

    fn is_possible(self) -> bool {
        let memory = self.lanes.saturating_mul(8)..=MEMORY_KIB_MAX;
        memory.contains(&self.memory_kib)
            && (1..=PASSES_MAX).contains(&self.passes)
            && (1..=LANES_MAX).contains(&self.lanes)
    }
}

impl Default for Cost {
    fn default() -> Cost {
        Cost::DEVICE
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Cost::NAMED.iter().find(|(_, cost)| cost == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "m={},t={},p={}", self.memory_kib, self.passes, self.lanes),
        }
    }
}

impl FromStr for Cost {
    type Err = String;

    fn from_str(text: &str) -> Result<Cost, String> {
        if let Some((_, cost)) = Cost::NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*cost);
        }
        let cost = parameters(text)
            .ok_or("device, mixed, person or parameters such as m=4096,t=1 (KiB, passes) are expected")?;
        if cost.is_possible() {
            Ok(cost)
        } else {
            Err(format!(
                "m is between 8 for each lane and {MEMORY_KIB_MAX} (KiB), t between 1 and {PASSES_MAX}, p between 1 and \
                 {LANES_MAX}"
            ))
        }
    }
}

/// `m=19456,t=2,p=1`, as it stands in an argon2 hash; `p` may be left out.
pub(super) fn parameters(text: &str) -> Option<Cost> {
    let number = |part: &str, name: &str| {
        let digits = part.strip_prefix(name)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let mut parts = text.split(',');
    let memory_kib = number(parts.next()?, "m=")?;
    let passes = number(parts.next()?, "t=")?;
    let lanes = parts.next().map_or(Some(1), |part| number(part, "p="))?;
    parts.next().is_none().then_some(Cost { memory_kib, passes, lanes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_has_a_name_or_parameters() {
        for (text, cost) in [
            ("device", Cost::DEVICE),
            ("person", Cost::PERSON),
            ("m=19456,t=2", Cost::PERSON),
            ("m=64,t=3,p=2", Cost { memory_kib: 64, passes: 3, lanes: 2 }),
        ] {
            assert_eq!(text.parse(), Ok(cost), "{text}");
            assert_eq!(cost.to_string().parse(), Ok(cost), "{text}");
        }
        for wrong in [
            "",
            "cheap",
            "m=1",
            "m=7,t=1",
            "m=64,t=0",
            "m=64,t=1,p=0",
            "m=64,t=1,p=9",
            "m=64,t=65",
            "m=1048577,t=1",
            "m=64,t=1,p=1,x=1",
            "t=1,m=64",
            "m=+64,t=1",
            "m=99999999999,t=1",
        ] {
            assert!(wrong.parse::<Cost>().is_err(), "{wrong}");
        }
    }
}
