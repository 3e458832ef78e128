//! Why a broker did not start: what to type, and the code to exit with.

use std::{fmt, io};

use crate::access::FileError;
use crate::config::{ConfigError, exit};
use crate::io::kernel::KernelError;
use crate::io::sockets::{Cause, ListenError};
use crate::io::uring::Unavailable;
use crate::transport::tls::LoadError;

use super::listeners::LISTENERS_MAX;
use super::store::StoreError;

/// Why a broker did not start.
#[derive(Debug)]
pub enum StartError {
    Kernel(KernelError),
    Listen(ListenError),
    Tls(LoadError),
    /// Too few descriptors for what was asked.
    Descriptors {
        limit: u64,
        needed: u64,
        connections: u64,
        /// So many shards would have room in their rings.
        shards: Option<u64>,
    },
    /// A CPU that this process may not use.
    Pin {
        cpu: u16,
        error: io::Error,
    },
    /// The data directory.
    Store(StoreError),
    /// A file of users or rules.
    Access(FileError),
    /// A thread, or a limit that could not be read.
    System {
        what: &'static str,
        error: io::Error,
    },
}

impl StartError {
    /// The code that the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Kernel(KernelError::Uring(Unavailable::Failed { .. }) | KernelError::Epoll(_)) => {
                exit::SYSTEM
            }
            StartError::Kernel(KernelError::Uring(_)) => exit::UNAVAILABLE,
            StartError::Listen(error) => match error.cause {
                Cause::Privileged => exit::PRIVILEGE,
                Cause::NotHere => exit::USAGE,
                Cause::Instance | Cause::Taken | Cause::Descriptors | Cause::Other(_) => exit::SYSTEM,
            },
            StartError::Pin { .. } => exit::USAGE,
            StartError::Store(error) => error.exit_code(),
            StartError::Access(_) | StartError::Tls(_) => exit::CONFIG,
            StartError::Descriptors { .. } | StartError::System { .. } => exit::SYSTEM,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Kernel(error) => error.fmt(f),
            StartError::Listen(error) => error.fmt(f),
            StartError::Store(error) => error.fmt(f),
            StartError::Access(error) => error.fmt(f),
            StartError::Tls(error) => error.fmt(f),
            StartError::Descriptors { limit, needed, connections, shards } => write!(
                f,
                "this process may have {limit} descriptors, but {connections} connections need {needed}. \
                 To raise the limit in this shell: ulimit -n {needed} (as root if the hard limit is \
                 lower); for a systemd unit: LimitNOFILE={needed}; for a container: --ulimit nofile={needed}{}",
                shards.map_or(String::new(), |shards| format!(
                    ". Or use --shards {shards}: each shard keeps up to {limit} sockets in its ring"
                ))
            ),
            StartError::Pin { cpu, error } => write!(
                f,
                "this process may not run on CPU {cpu}: {error}. To see its CPUs: taskset -cp $$. \
                 Name other CPUs with --cores, or let the scheduler choose with --no-pin"
            ),
            StartError::System { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<KernelError> for StartError {
    fn from(error: KernelError) -> StartError {
        StartError::Kernel(error)
    }
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> StartError {
        StartError::Store(error)
    }
}

impl From<LoadError> for StartError {
    fn from(error: LoadError) -> StartError {
        StartError::Tls(error)
    }
}

impl From<ListenError> for StartError {
    fn from(error: ListenError) -> StartError {
        StartError::Listen(error)
    }
}

/// Why a reload failed.
#[derive(Debug)]
pub enum ReloadError {
    Start(StartError),
    /// The command line or the file.
    Config(ConfigError),
    /// More listeners, or files of users, than one process knows in its life.
    Listeners,
    /// A shard did not say that it did what it was told. The new settings apply, but not all listeners may be opened and
    /// closed as they say.
    NoAnswer,
}

impl ReloadError {
    /// Whether everything is as it was before the reload.
    pub fn changed_nothing(&self) -> bool {
        match self {
            ReloadError::Start(_) | ReloadError::Config(_) | ReloadError::Listeners => true,
            ReloadError::NoAnswer => false,
        }
    }
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadError::Start(error) => error.fmt(f),
            ReloadError::Config(error) => error.fmt(f),
            ReloadError::Listeners => {
                write!(
                    f,
                    "this process has used {LISTENERS_MAX} addresses or password files, which is the most \
                     it can; restart it to use another one"
                )
            }
            ReloadError::NoAnswer => {
                write!(
                    f,
                    "a shard did not answer: the new settings apply, but new addresses may be closed and old \
                     ones open"
                )
            }
        }
    }
}

impl std::error::Error for ReloadError {}

impl From<StartError> for ReloadError {
    fn from(error: StartError) -> ReloadError {
        ReloadError::Start(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It once said that new settings apply, and that the former ones were kept.
    #[test]
    fn a_shard_that_does_not_answer_is_no_reload_that_changed_nothing() {
        assert!(!ReloadError::NoAnswer.changed_nothing());
        assert!(ReloadError::NoAnswer.to_string().contains("the new settings apply"));
        assert!(ReloadError::Listeners.changed_nothing());
    }
}
