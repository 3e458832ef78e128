//! A packet that comes in several receives: how it gets its memory.

/// A packet is given memory for all of it once this part of it is there, 1 of so many: earlier it would be memory that
/// nobody has earned, later it would be copied from smaller to larger memory.
const EARNED: usize = 8;

/// Adds to a partial packet of `need` bytes.
pub(super) fn gather(partial: &mut Vec<u8>, more: &[u8], need: usize) {
    if need <= (partial.len() + more.len()).saturating_mul(EARNED) {
        partial.reserve_exact(need.saturating_sub(partial.len()));
    }
    partial.extend_from_slice(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_gets_its_memory_at_once_when_an_eighth_of_it_is_there_and_not_earlier() {
        let mut partial = Vec::new();
        gather(&mut partial, &[1; 100], 8 << 20);
        assert!(partial.capacity() <= 200, "{} bytes for 100 of 8 MiB", partial.capacity());
        while partial.len() < 64 << 10 {
            let more = vec![2; 4096.min((64 << 10) - partial.len())];
            gather(&mut partial, &more, 512 << 10);
            let earned = partial.len() * EARNED;
            assert!(partial.capacity() <= earned.max(512), "{} of {}", partial.capacity(), partial.len());
        }
        assert_eq!(partial.capacity(), 512 << 10, "all of it, and no more");
        let memory = partial.as_ptr();
        gather(&mut partial, &[3; 7 * (64 << 10)], 512 << 10);
        assert_eq!((partial.as_ptr(), partial.len()), (memory, 512 << 10), "not moved");
        assert!(partial.starts_with(&[1; 100]) && partial.ends_with(&[3; 64]));
    }
}
