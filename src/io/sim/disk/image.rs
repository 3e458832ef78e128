//! The bytes of a file. What was never written is zero and takes no memory; a copy shares what neither side writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::memory::SECTOR;

const BLOCK: u64 = SECTOR as u64;

#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    len: u64,
    /// By number; one that is missing is zero.
    blocks: BTreeMap<u64, Arc<[u8; SECTOR]>>,
}

impl Image {
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    pub fn cut(&mut self, len: u64) {
        let len = self.len.min(len);
        let (block, inside) = (len / BLOCK, (len % BLOCK) as usize);
        self.blocks.retain(|number, _| *number <= block);
        if let Some(last) = self.blocks.get_mut(&block) {
            Arc::make_mut(last)[inside..].fill(0);
        }
        self.len = len;
    }

    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (block, inside, count) = Self::piece(at + done as u64, bytes.len() - done);
            let target = self.blocks.entry(block).or_insert_with(|| Arc::new([0; SECTOR]));
            Arc::make_mut(target)[inside..inside + count].copy_from_slice(&bytes[done..done + count]);
            done += count;
        }
        if !bytes.is_empty() {
            self.grow(at + bytes.len() as u64);
        }
    }

    /// `len` bytes, zeros where nothing was written.
    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let (block, inside, count) = Self::piece(at + done as u64, len - done);
            if let Some(source) = self.blocks.get(&block) {
                bytes[done..done + count].copy_from_slice(&source[inside..inside + count]);
            }
            done += count;
        }
        bytes
    }

    /// The block that `at` is in, where in it, and how many of `left` bytes are in it.
    fn piece(at: u64, left: usize) -> (u64, usize, usize) {
        let inside = (at % BLOCK) as usize;
        (at / BLOCK, inside, left.min(SECTOR - inside))
    }
}
