//! Which way to the kernel this process takes, found out once at start: rings, or epoll where they are forbidden.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use super::Driver;
use super::epoll::{Bells, Epoll};
use super::uring::{Features, Peers, Sizes, Unavailable, Uring};
use crate::memory::ShardId;

/// What was asked for.
#[derive(Copy, Clone, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Choice {
    /// io_uring, or epoll where io_uring is missing or forbidden
    Auto,
    /// io_uring or nothing
    Uring,
    /// epoll, which is slower
    Epoll,
}

/// The way that is taken, and what the shards share on it.
#[derive(Clone, Debug)]
pub enum Kernel {
    Uring { features: Features, peers: Arc<Peers>, direct: u32 },
    Epoll { bells: Arc<Bells>, reason: Reason },
}

/// Why it is epoll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Asked,
    /// There is no io_uring that can be used.
    Unavailable(Unavailable),
}

/// Why there is no way.
#[derive(Debug)]
pub enum KernelError {
    Uring(Unavailable),
    Epoll(io::Error),
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::Uring(error) => error.fmt(f),
            KernelError::Epoll(error) => write!(f, "The kernel refused an epoll instance: {error}"),
        }
    }
}

impl std::error::Error for KernelError {}

impl Kernel {
    /// Takes the way that was asked for, for shards with numbers below `seats`.
    ///
    /// # Errors
    /// What is missing or forbidden. A lack of descriptors or memory is an error with [`Choice::Auto`] too: epoll would
    /// only hide it.
    pub fn choose(choice: Choice, seats: u16) -> Result<Kernel, KernelError> {
        let reason = match choice {
            Choice::Epoll => Reason::Asked,
            Choice::Auto | Choice::Uring => match Features::probe() {
                Ok(features) => {
                    return Ok(Kernel::Uring { features, peers: Arc::new(Peers::new(seats)), direct: 0 });
                }
                Err(error) if choice == Choice::Uring => return Err(KernelError::Uring(error)),
                Err(error @ Unavailable::Failed { .. }) => return Err(KernelError::Uring(error)),
                Err(error) => Reason::Unavailable(error),
            },
        };
        let bells = Arc::new(Bells::new(seats).map_err(KernelError::Epoll)?);
        Ok(Kernel::Epoll { bells, reason })
    }

    /// Lets each shard's ring hold so many sockets of its own, which are no process descriptors; false where there are no rings.
    #[must_use]
    pub fn hold_sockets(&mut self, places: u32) -> bool {
        match self {
            Kernel::Uring { direct, .. } => {
                *direct = places;
                true
            }
            Kernel::Epoll { .. } => false,
        }
    }

    /// Whether shards have rings.
    pub fn has_rings(&self) -> bool {
        matches!(self, Kernel::Uring { .. })
    }

    /// A driver without sockets of its own, for a thread that only rings and draws numbers.
    ///
    /// # Errors
    /// As [`Kernel::choose`].
    pub fn ringer(&self, seat: ShardId) -> Result<Box<dyn Driver>, KernelError> {
        match self {
            Kernel::Uring { peers, .. } => {
                let tiny = Sizes { sq_entries: 256, cq_entries: 256, buffers: 1, buffer_bytes: 1, direct: 0 };
                Ok(Box::new(uring(tiny, seat, peers, Vec::new())?))
            }
            Kernel::Epoll { bells, .. } => Ok(Box::new(epoll((1, 1), seat, bells, Vec::new())?)),
        }
    }

    /// Makes the driver of a shard, on the shard's thread, and gives it to the visitor. Receive buffers may take
    /// `buffer_bytes`.
    pub fn drive<V: Visitor>(
        &self,
        seat: ShardId,
        listeners: Vec<TcpListener>,
        buffer_bytes: u64,
        visitor: V,
    ) -> V::Output {
        let sizes = Sizes::within(buffer_bytes);
        match self {
            Kernel::Uring { peers, direct, .. } => {
                match uring(Sizes { direct: *direct, ..sizes }, seat, peers, listeners) {
                    Ok(driver) => visitor.visit(driver),
                    Err(error) => visitor.refuse(error),
                }
            }
            Kernel::Epoll { bells, .. } => {
                match epoll((sizes.buffers, sizes.buffer_bytes), seat, bells, listeners) {
                    Ok(driver) => visitor.visit(driver),
                    Err(error) => visitor.refuse(error),
                }
            }
        }
    }
}

/// What is done with a driver, whichever it is.
pub trait Visitor {
    type Output;

    fn visit<D: Driver>(self, driver: D) -> Self::Output;
    /// There is none.
    fn refuse(self, error: KernelError) -> Self::Output;
}

fn uring(
    sizes: Sizes,
    seat: ShardId,
    peers: &Arc<Peers>,
    listeners: Vec<TcpListener>,
) -> Result<Uring, KernelError> {
    Uring::new(sizes, seat, Arc::clone(peers), listeners).map_err(KernelError::Uring)
}

fn epoll(
    buffers: (u16, u32),
    seat: ShardId,
    bells: &Arc<Bells>,
    listeners: Vec<TcpListener>,
) -> Result<Epoll, KernelError> {
    Epoll::new(buffers, seat, Arc::clone(bells), listeners).map_err(KernelError::Epoll)
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kernel::Uring { features, direct: 0, .. } => features.fmt(f),
            Kernel::Uring { features, direct, .. } => {
                write!(f, "{features}; up to {direct} sockets in the table of each shard's ring")
            }
            Kernel::Epoll { reason: Reason::Asked, .. } => write!(f, "epoll (--io epoll)"),
            Kernel::Epoll { reason: Reason::Unavailable(error), .. } => {
                write!(f, "epoll ({})", error.short())
            }
        }
    }
}
