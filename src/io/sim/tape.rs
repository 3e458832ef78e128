//! A recording of everything that happened to a disk, to be played up to any point.

use super::disk::{Disk, Step};

/// See the top of the file.
#[derive(Clone, Debug)]
pub struct Tape {
    start: Disk,
    steps: Vec<Step>,
}

impl Tape {
    pub(super) fn new(start: Disk, steps: Vec<Step>) -> Tape {
        Tape { start, steps }
    }

    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The disk after the first `count` steps, with what was undecided then.
    pub fn disk_after(&self, count: usize) -> Disk {
        let mut disk = self.start.clone();
        self.steps[..count].iter().for_each(|step| disk.apply(step.clone()));
        disk
    }

    /// Shows the disk after each number of steps, from none to all.
    pub fn each_prefix(&self, mut look: impl FnMut(usize, &Disk)) {
        let mut disk = self.start.clone();
        look(0, &disk);
        for (at, step) in self.steps.iter().enumerate() {
            disk.apply(step.clone());
            look(at + 1, &disk);
        }
    }
}
