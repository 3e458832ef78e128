//! Subscribers that read slowly on purpose: each takes a few bytes at a time, at a fixed rate.

/// Bytes of one read.
pub const CHUNK: u32 = 1024;

struct Reader {
    slot: u32,
    /// When it may read its next chunk.
    next_ns: u64,
}

/// The slow subscribers of one worker.
pub struct SlowReaders {
    readers: Vec<Reader>,
    /// Between two reads; `None` if they never read.
    gap_ns: Option<u64>,
}

impl SlowReaders {
    /// `rate` in bytes a second for each; 0 for never.
    pub fn new(rate: u32) -> SlowReaders {
        let gap_ns = (rate > 0).then(|| u64::from(CHUNK) * 1_000_000_000 / u64::from(rate));
        SlowReaders { readers: Vec::new(), gap_ns }
    }

    pub fn add(&mut self, slot: u32) {
        self.readers.push(Reader { slot, next_ns: 0 });
    }

    pub fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }

    /// The slots that may read a chunk now.
    pub fn due(&mut self, now_ns: u64) -> impl Iterator<Item = u32> + '_ {
        let gap_ns = self.gap_ns;
        self.readers.iter_mut().filter_map(move |reader| {
            let gap_ns = gap_ns?;
            if reader.next_ns > now_ns {
                return None;
            }
            reader.next_ns = now_ns + gap_ns;
            Some(reader.slot)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_keep_their_rate() {
        let mut slow = SlowReaders::new(10_240);
        slow.add(3);
        let reads = (0..1000u64).map(|ms| slow.due(ms * 1_000_000).count()).sum::<usize>();
        assert_eq!(reads, 10);
        let mut never = SlowReaders::new(0);
        never.add(1);
        assert_eq!(never.due(u64::MAX).count(), 0);
    }
}
