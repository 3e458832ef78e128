//! What goes wrong in a run and how often: drawn once per run, counted when it happens.

use super::rng::{Odds, Rng};

/// What goes wrong with the disk.
#[derive(Clone, Debug)]
pub struct DiskFaults {
    /// Looks of a shard that an operation of its own takes at most.
    pub looks: usize,
    /// Per write and flush: it fails.
    pub write_fails: Odds,
    /// Per failed write: some of it, or all, reached the disk.
    pub failed_write_counts: Odds,
    /// Per read: it fails.
    pub read_fails: Odds,
    /// Per file that is made: the disk is full.
    pub no_space: Odds,
    /// Per crash: a bit of some file is another one afterwards.
    pub bit_flips: Odds,
}

impl DiskFaults {
    /// A disk that does everything at once.
    pub const NONE: DiskFaults = DiskFaults {
        looks: 0,
        write_fails: Odds::NEVER,
        failed_write_counts: Odds::NEVER,
        read_fails: Odds::NEVER,
        no_space: Odds::NEVER,
        bit_flips: Odds::NEVER,
    };

    /// Errors are rare: a broker may end at the second one.
    pub fn draw(rng: &mut Rng) -> DiskFaults {
        DiskFaults {
            looks: *rng.pick(&[0, 1, 3, 20]),
            write_fails: Odds(rng.odds(5_000).0 / 100),
            failed_write_counts: rng.odds(9_000),
            read_fails: Odds(rng.odds(5_000).0 / 100),
            no_space: rng.odds(2_000),
            bit_flips: rng.odds(2_000),
        }
    }
}

/// The faults of one run and the sizes of the simulated kernel.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Per completion and look: it is not there yet. Other sockets' completions overtake it.
    pub late: Odds,
    /// Per doorbell and look: as `late`.
    pub late_doorbell: Odds,
    /// Per operation that could make progress: the kernel does not get to it yet.
    pub stalled: Odds,
    /// Per receive with data: it brings only a part.
    pub short_receive: Odds,
    /// Per send with room for a part: it ends with that part.
    pub short_send: Odds,
    /// Per chunk of a receive of the `Many` kind: the receive ends with it.
    pub receive_ends: Odds,
    /// Per receive with data: no buffer although there are some.
    pub no_buffers: Odds,
    /// Per look at a receive that is being cancelled: data comes first.
    pub data_after_cancel: Odds,
    /// Per connection and look: the connection fails.
    pub reset: Odds,
    /// Per failed connection: what the peer had sent and nobody had read is lost with it.
    pub reset_loses_data: Odds,
    /// Per accepted connection: accepting ends.
    pub accept_ends: Odds,
    /// Receive buffers of a shard.
    pub buffers: usize,
    /// Bytes of one receive buffer.
    pub buffer_bytes: usize,
    /// Several receives share one buffer, one after the other, as with incremental buffers of the kernel.
    pub incremental: bool,
    /// Bytes that the kernel holds for a connection towards the shard.
    pub to_shard_bytes: usize,
    /// Bytes that the kernel holds for a connection towards the client.
    pub to_client_bytes: usize,
    pub disk: DiskFaults,
}

impl Faults {
    /// A kernel that does everything at once.
    pub fn none() -> Faults {
        Faults {
            late: Odds::NEVER,
            late_doorbell: Odds::NEVER,
            stalled: Odds::NEVER,
            short_receive: Odds::NEVER,
            short_send: Odds::NEVER,
            receive_ends: Odds::NEVER,
            no_buffers: Odds::NEVER,
            data_after_cancel: Odds::NEVER,
            reset: Odds::NEVER,
            reset_loses_data: Odds::NEVER,
            accept_ends: Odds::NEVER,
            buffers: 64,
            buffer_bytes: 4096,
            incremental: false,
            to_shard_bytes: 64 * 1024,
            to_client_bytes: 64 * 1024,
            disk: DiskFaults::NONE,
        }
    }

    /// Each fault never, rarely or often; each size tiny or ordinary.
    pub fn draw(rng: &mut Rng) -> Faults {
        Faults {
            late: rng.odds(7_000),
            late_doorbell: rng.odds(8_000),
            stalled: rng.odds(7_000),
            short_receive: rng.odds(8_000),
            short_send: rng.odds(5_000),
            receive_ends: rng.odds(3_000),
            no_buffers: rng.odds(1_000),
            data_after_cancel: rng.odds(7_000),
            reset: Odds(rng.odds(2_000).0 / 100),
            reset_loses_data: rng.odds(9_000),
            accept_ends: rng.odds(3_000),
            buffers: *rng.pick(&[1, 2, 3, 8, 64]),
            buffer_bytes: *rng.pick(&[16, 61, 256, 4096]),
            incremental: rng.below(2) == 0,
            to_shard_bytes: *rng.pick(&[64, 700, 65_536]),
            to_client_bytes: *rng.pick(&[40, 500, 65_536]),
            // From numbers of its own, so that what is drawn after it is what it was before there were disks.
            disk: DiskFaults::draw(&mut rng.clone().fork()),
        }
    }

    /// The same kernel from now on without faults, for the end of a run that must come to rest.
    pub fn heal(&mut self) {
        *self = Faults {
            buffers: self.buffers,
            buffer_bytes: self.buffer_bytes,
            incremental: self.incremental,
            to_shard_bytes: self.to_shard_bytes,
            to_client_bytes: self.to_client_bytes,
            ..Faults::none()
        };
    }
}

/// What went wrong, for counting.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    Late,
    LateDoorbell,
    Stalled,
    ShortReceive,
    ShortSend,
    ReceiveEnds,
    NoBuffers,
    Cancelled,
    DataAfterCancel,
    Reset,
    ResetLosesData,
    AcceptEnds,
    SendBlocked,
    SendFailed,
    HalfOpen,
    HalfClosed,
    DiskSlow,
    WriteFailed,
    ReadFailed,
    NoSpace,
    WriteDropped,
    WriteTorn,
    BitFlipped,
}

impl Fault {
    pub const COUNT: usize = 23;
    /// In the order of the enumeration.
    pub const NAMES: [&'static str; Fault::COUNT] = [
        "late completions",
        "late doorbells",
        "stalled operations",
        "short receives",
        "short sends",
        "multishot receives ended",
        "receives without buffer",
        "receives cancelled",
        "data after a cancel",
        "connections reset",
        "resets with loss of data",
        "accepts ended",
        "sends blocked by a slow reader",
        "sends failed",
        "half-open peers",
        "half-closed peers",
        "slow operations of the disk",
        "writes failed",
        "reads of files failed",
        "files refused by a full disk",
        "writes dropped by a crash",
        "writes torn by a crash",
        "bits flipped at rest",
    ];
}

/// How often each kind of fault happened.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct FaultCounts([u64; Fault::COUNT]);

impl FaultCounts {
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Name and count of each kind that needs no disk.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Fault::NAMES.into_iter().zip(self.0).take(Fault::DiskSlow as usize)
    }

    /// Name and count of each kind that only a run with files can have.
    pub fn disk_rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Fault::NAMES.into_iter().zip(self.0).skip(Fault::DiskSlow as usize)
    }

    pub fn add(&mut self, other: &FaultCounts) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }
}
