//! What is behind each address: acceptors of TLS, limits, and who is let in there.
//!
//! A listener has its number for as long as the process lives, also while nobody listens there: its address comes back to
//! it, and what its clients may do is found by it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::access::{Door, Policy, Settings};
use crate::config::{Config, ListenerConfig};
use crate::io::ListenerId;
use crate::io::sockets::Lock;
use crate::shard::Listening;
use crate::transport::tls::{LoadError, TlsAcceptor};
use crate::transport::{Acceptor, Layers};

/// Addresses that a process serves in its life at most, and files of users that it knows.
pub(super) const LISTENERS_MAX: usize = 4096;

/// One listener, open or closed.
pub(super) struct Served {
    /// Its address, with the port that was chosen for port 0.
    pub address: SocketAddr,
    /// As it was asked for when it was open last.
    pub config: ListenerConfig,
    pub door: Door,
    /// The files that the door means.
    pub files: DoorFiles,
    pub listening: Listening,
    /// `None` while it is closed.
    pub lock: Option<Lock>,
}

/// The files of one door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DoorFiles {
    users: Option<PathBuf>,
    rules: Option<PathBuf>,
}

impl DoorFiles {
    pub fn of(settings: &Settings, door: &Door) -> DoorFiles {
        let file = |files: &[PathBuf], at: Option<u16>| files.get(usize::from(at?)).cloned();
        DoorFiles {
            users: file(&settings.password_files, door.users),
            rules: file(&settings.acl_files, door.rules),
        }
    }
}

/// The acceptor of each listener, none for a plain one. Listeners with the same files and the same wish for certificates of
/// clients have one acceptor, so a client resumes at any of them; others have tickets of their own. Those in `running` are
/// taken where they are of use, and not loaded again.
pub(super) fn acceptors(
    config: &Config,
    running: &[Arc<TlsAcceptor>],
) -> Result<Vec<Option<Arc<TlsAcceptor>>>, LoadError> {
    let mut acceptors: Vec<Arc<TlsAcceptor>> = Vec::new();
    let mut acceptor = |listener: &ListenerConfig| {
        let Some(settings) = &listener.tls else { return Ok(None) };
        let mut known = acceptors.iter().chain(running);
        let acceptor = match known.find(|acceptor| acceptor.settings() == settings) {
            Some(acceptor) => Arc::clone(acceptor),
            None => Arc::new(TlsAcceptor::new(settings.clone())?),
        };
        acceptors.push(Arc::clone(&acceptor));
        Ok(Some(acceptor))
    };
    config.listeners.iter().map(&mut acceptor).collect()
}

/// Each once.
pub(super) fn distinct(acceptors: &[Option<Arc<TlsAcceptor>>]) -> Vec<Arc<TlsAcceptor>> {
    let mut each: Vec<Arc<TlsAcceptor>> = Vec::new();
    for acceptor in acceptors.iter().flatten() {
        if !each.iter().any(|known| Arc::ptr_eq(known, acceptor)) {
            each.push(Arc::clone(acceptor));
        }
    }
    each
}

/// What lies between the sockets and MQTT where this acceptor stands.
pub(super) fn layers(acceptor: Option<&Arc<TlsAcceptor>>) -> Layers {
    Layers::new(acceptor.map(|acceptor| Arc::clone(acceptor) as Arc<dyn Acceptor>))
}

/// Which listener each address of `config` is: one that is known, or the next number. Of equal addresses, which have
/// port 0, the first is the first that is known.
pub(super) fn numbers(config: &Config, served: &[Served]) -> Vec<ListenerId> {
    let mut free: Vec<bool> = vec![true; served.len()];
    let mut next = served.len();
    let mut number = |listener: &ListenerConfig| {
        let is_it = |(at, known): &(usize, &Served)| free[*at] && known.config.address == listener.address;
        let at = match served.iter().enumerate().find(is_it) {
            Some((at, _)) => {
                free[at] = false;
                at
            }
            None => {
                next += 1;
                next - 1
            }
        };
        ListenerId(at as u16)
    };
    config.listeners.iter().map(&mut number).collect()
}

/// The policy of `config` by the numbers of its listeners. At those that are closed the rules from before hold, in the state
/// of their file if it is still one of those that were read.
pub(super) fn policy(
    config: &Config,
    loaded: Policy,
    numbers: &[ListenerId],
    served: &[Served],
    before: &Policy,
) -> Policy {
    let len = numbers.iter().map(|number| usize::from(number.0) + 1).chain([served.len()]).max().unwrap_or(0);
    let mut doors = vec![None; len];
    let mut rules = loaded.rules.into_vec();
    for (number, door) in numbers.iter().zip(&loaded.doors) {
        doors[usize::from(number.0)] = Some(*door);
    }
    for (door, known) in doors.iter_mut().zip(served).filter(|(door, _)| door.is_none()) {
        let file = known.files.rules.as_ref();
        let read = config.access.acl_files.iter().position(|path| Some(path) == file);
        let kept = known.door.rules.and_then(|at| before.rules.get(usize::from(at)));
        let at = read.or_else(|| {
            rules.push(kept?.clone());
            Some(rules.len() - 1)
        });
        *door = Some(Door { rules: at.map(|at| at as u16), ..known.door });
    }
    let doors = doors.into_iter().map(Option::unwrap_or_default).collect();
    Policy { rules: rules.into(), doors, ..loaded }
}
