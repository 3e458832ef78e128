//! Random numbers of the kernel, fetched some at a time.

use rustix::rand::{GetRandomFlags, getrandom};

/// Numbers that were fetched and not used.
#[derive(Debug, Default)]
pub(super) struct Random(Vec<u64>);

impl Random {
    /// Bytes fetched at a time. Requests of up to so many are never cut short.
    const BYTES: usize = 256;

    /// The next one; a system call is counted in `calls`.
    pub(super) fn next(&mut self, calls: &mut u64) -> u64 {
        if let Some(number) = self.0.pop() {
            return number;
        }
        *calls += 1;
        let mut bytes = [0; Random::BYTES];
        let fetched = getrandom(&mut bytes, GetRandomFlags::empty());
        assert_eq!(fetched, Ok(Random::BYTES), "getrandom");
        self.0.extend(bytes.as_chunks().0.iter().map(|number| u64::from_ne_bytes(*number)));
        self.0.pop().expect("filled above")
    }
}

/// Keys for hashes, where there is no backend to ask.
pub fn random_keys() -> [u64; 4] {
    let (mut random, mut calls) = (Random::default(), 0);
    [(); 4].map(|()| random.next(&mut calls))
}
