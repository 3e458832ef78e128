//! SIGHUP: another configuration for a broker that runs.
//!
//! Everything that can fail is done first and changes nothing: files are read, addresses bound. Then, in this order: users
//! and certificates are replaced; every shard is given the new rules, limits and listeners in one order and has to say so;
//! new addresses begin to accept, since no shard can meet a client of a listener that it does not know; old ones cease to.
//! Clients stay, also those of an address that is closed.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listeners::{self, DoorFiles, LISTENERS_MAX, Served};
use super::{BACKLOG, Gatekeeping, ReloadError, Server, StartError, sockets};
use crate::access::{Policy, Users};
use crate::config::{self, Change, Config};
use crate::io::ListenerId;
use crate::io::sockets::Lock;
use crate::limits::{Limits, ListenerLimits};
use crate::shard::{Listening, NewSettings, NoAnswer, Order};
use crate::transport::tls::Reload;

/// How long shards may take to do what they are told; a turn takes milliseconds.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);

/// What a reload did.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// Settings of the whole broker that have another value from now on.
    pub changed: Vec<Change>,
    /// Those that have the value from before, since theirs needs a restart.
    pub needs_restart: Vec<Change>,
    /// Listeners that were opened.
    pub opened: Vec<SocketAddr>,
    /// Listeners that were closed, with the number of clients that stay.
    pub closed: Vec<(SocketAddr, u32)>,
    /// Listeners with other settings of their own.
    pub altered: Vec<SocketAddr>,
    /// Users in all files.
    pub users: usize,
    /// Files of rules.
    pub rule_files: usize,
}

/// All that was read and bound, and is not in force.
struct Prepared {
    limits: Limits,
    policy: Policy,
    /// By the number of their file.
    users: Arc<[Users]>,
    certificates: Reload,
    listening: Vec<Listening>,
    numbers: Vec<ListenerId>,
    /// By shard.
    opening: Vec<Vec<(ListenerId, TcpListener)>>,
    opened: Vec<(ListenerId, SocketAddr, Lock)>,
    closing: Vec<ListenerId>,
}

impl Server {
    /// Puts another configuration in force, together with the files that it names. All of it takes effect, except for what
    /// needs a restart, or nothing, unless a shard does not answer. Clients stay connected.
    ///
    /// # Errors
    /// What is missing or wrong; nothing has changed then. Or a shard did not answer, which
    /// [`ReloadError::changed_nothing`] tells apart.
    pub fn reload(&mut self, mut new: Config) -> Result<Reloaded, ReloadError> {
        let (mut changed, mut needs_restart) = new.succeed(&self.config);
        let connections = self.connections_allowed(&mut new, &mut changed);
        needs_restart.extend(connections.1);
        let limits = Limits { connections_max: connections.0, ..new.limits };
        let acceptors = listeners::acceptors(&new, &self.acceptors).map_err(StartError::Tls)?;
        let prepared = self.prepare(&new, limits, &acceptors)?;
        let altered = self.altered(&new, &prepared);
        let counts: Vec<usize> = new
            .access
            .password_files
            .iter()
            .map(|path| self.access.number(path).map_or(0, |number| prepared.users[number].len()))
            .collect();
        let done = Reloaded {
            changed,
            needs_restart,
            opened: prepared.opened.iter().map(|(_, address, _)| *address).collect(),
            closed: Vec::new(),
            altered,
            users: counts.iter().sum(),
            rule_files: new.access.acl_files.len(),
        };
        self.acceptors = listeners::distinct(&acceptors);
        self.access.users = counts;
        let closed = self.commit(new, prepared).map_err(|NoAnswer| ReloadError::NoAnswer)?;
        Ok(Reloaded { closed, ..done })
    }

    /// As many connections as are asked for and can be. What would need more than there was room for at the start needs a
    /// restart.
    fn connections_allowed(&self, new: &mut Config, changed: &mut Vec<Change>) -> (u32, Option<Change>) {
        let (asked, running) = (new.limits.connections_max, self.limits.connections_max);
        match new.connections_asked {
            true if asked > self.connections_room => {
                let change = new.keep_connections_max(&self.config, changed);
                (new.limits.connections_max, new.connections_asked) =
                    (self.config.limits.connections_max, self.config.connections_asked);
                (running, change)
            }
            true => (asked, None),
            false => (asked.min(self.connections_room), None),
        }
    }

    fn prepare(
        &mut self,
        new: &Config,
        limits: Limits,
        acceptors: &[Option<Arc<crate::transport::tls::TlsAcceptor>>],
    ) -> Result<Prepared, ReloadError> {
        let mut loaded = new.access.load().map_err(StartError::Access)?;
        let again: Vec<_> = listeners::distinct(acceptors)
            .into_iter()
            .filter(|acceptor| self.acceptors.iter().any(|known| Arc::ptr_eq(known, acceptor)))
            .collect();
        let certificates = Reload::load(&again).map_err(StartError::Tls)?;
        let numbers = listeners::numbers(new, &self.served);
        if numbers.iter().any(|number| usize::from(number.0) >= LISTENERS_MAX) {
            return Err(ReloadError::Listeners);
        }
        let users = self.access.number_users(&new.access.password_files, &mut loaded);
        if self.access.files.len() > LISTENERS_MAX {
            return Err(ReloadError::Listeners);
        }
        let policy = listeners::policy(new, loaded, &numbers, &self.served, &self.access.policy);
        let mut listening: Vec<Listening> =
            self.served.iter().map(|served| served.listening.closed()).collect();
        let mut fresh = Vec::new();
        for (index, (number, listener)) in numbers.iter().zip(&new.listeners).enumerate() {
            let at = usize::from(number.0);
            let layers = listeners::layers(acceptors[index].as_ref());
            match self.served.get(at) {
                Some(served) => listening[at] = served.listening.renewed(layers, listener.limits),
                None => {
                    let first = index.checked_sub(1).map(|first| usize::from(numbers[first].0));
                    listening.push(match first.and_then(|first| listening.get(first)) {
                        Some(first) if listener.shares_room => first.clone(),
                        Some(_) | None => Listening::new(layers, listener.limits),
                    });
                }
            }
            if self.served.get(at).is_none_or(|served| served.lock.is_none()) {
                fresh.push((index, *number, listener.address));
            }
        }
        let is_open = |(_, served): &(usize, &Served)| served.lock.is_some();
        let is_left = |at: &usize| !numbers.contains(&ListenerId(*at as u16));
        let leaving: Vec<usize> =
            self.served.iter().enumerate().filter(is_open).map(|(at, _)| at).filter(is_left).collect();
        let leaving_addresses: Vec<SocketAddr> = leaving.iter().map(|at| self.served[*at].address).collect();
        let asked: Vec<SocketAddr> = fresh.iter().map(|(_, _, address)| *address).collect();
        let bound = sockets::listen_beside(&asked, &leaving_addresses, self.desks.len() as u16, BACKLOG)
            .map_err(|error| {
                let at = fresh.iter().find(|(_, _, address)| *address == error.address);
                ReloadError::Config(
                    new.at_listener(at.map_or(usize::MAX, |(index, ..)| *index), error.to_string()),
                )
            })?;
        if !new.access.password_files.is_empty() {
            self.access.start_hashing(&self.kernel)?;
        }
        let ids: Vec<ListenerId> = fresh.iter().map(|(_, number, _)| *number).collect();
        let opening = bound.by_shard.into_iter();
        Ok(Prepared {
            limits,
            policy,
            users,
            certificates,
            listening,
            opening: opening.map(|sockets| ids.iter().copied().zip(sockets).collect()).collect(),
            opened: ids
                .iter()
                .zip(bound.addresses)
                .zip(bound.locks)
                .map(|((number, address), lock)| (*number, address, lock))
                .collect(),
            numbers,
            closing: leaving.into_iter().map(|at| ListenerId(at as u16)).collect(),
        })
    }

    /// Those that are open and stay so, and have other settings of their own.
    fn altered(&self, new: &Config, prepared: &Prepared) -> Vec<SocketAddr> {
        let mut altered = Vec::new();
        for (index, (number, listener)) in prepared.numbers.iter().zip(&new.listeners).enumerate() {
            let Some(served) = self.served.get(usize::from(number.0)) else { continue };
            if served.lock.is_none() {
                continue;
            }
            let door = prepared.policy.doors[usize::from(number.0)];
            let has_own_limits = served.config.limits != ListenerLimits::of(&self.config.limits)
                || listener.limits != ListenerLimits::of(&new.limits);
            let is_same = served.config.tls == listener.tls
                && (served.config.limits == listener.limits || !has_own_limits)
                && served.files == DoorFiles::of(&new.access, &new.access.doors[index])
                && (served.door.anonymous, served.door.client_ids) == (door.anonymous, door.client_ids);
            if !is_same {
                altered.push(served.address);
            }
        }
        altered
    }

    /// Puts it in force. Nothing of this can fail; but a shard may not answer.
    fn commit(&mut self, new: Config, prepared: Prepared) -> Result<Vec<(SocketAddr, u32)>, NoAnswer> {
        let files: Vec<DoorFiles> =
            new.access.doors.iter().map(|door| DoorFiles::of(&new.access, door)).collect();
        let Prepared {
            limits,
            policy,
            users,
            certificates,
            listening,
            numbers,
            mut opening,
            opened,
            closing,
        } = prepared;
        certificates.swap();
        self.certificates.forget();
        self.access.hashing.replace(users);
        for (served, listening) in self.served.iter_mut().zip(&listening) {
            served.listening = listening.clone();
        }
        let known = self.served.len();
        for (number, (listener, files)) in numbers.iter().zip(new.listeners.iter().zip(files)) {
            let at = usize::from(number.0);
            let (config, door) = (listener.clone(), policy.doors[at]);
            match self.served.get_mut(at) {
                Some(served) => (served.config, served.files) = (config, files),
                None => self.served.push(Served {
                    address: config.address,
                    config,
                    door,
                    files,
                    listening: listening[at].clone(),
                    lock: None,
                }),
            }
        }
        debug_assert!(known <= self.served.len());
        for (served, door) in self.served.iter_mut().zip(&policy.doors) {
            served.door = *door;
        }
        self.access.settings = new.access.clone();
        self.access.policy = Arc::new(policy);
        self.pool.resize(config::pools(&self.limits), config::pools(&limits));
        self.limits = limits;
        let settings = NewSettings {
            limits,
            listeners: listening,
            policy: Arc::clone(&self.access.policy),
            sys_interval_ms: new.sys_interval_ms,
        };
        self.config = new;
        self.order(|_| Some(Order::Settings(Box::new(settings.clone()))))?;
        if !opened.is_empty() {
            self.order(|shard| Some(Order::Open(std::mem::take(opening.get_mut(shard)?))))?;
        }
        for (number, address, lock) in opened {
            let served = &mut self.served[usize::from(number.0)];
            (served.address, served.lock) = (address, Some(lock));
        }
        self.addresses = numbers.iter().map(|number| self.served[usize::from(number.0)].address).collect();
        if closing.is_empty() {
            return Ok(Vec::new());
        }
        let closed = self.order(|_| Some(Order::Close(closing.clone())));
        let gone = |number: &ListenerId| {
            let served = &mut self.served[usize::from(number.0)];
            // Others may have the address from here on.
            served.lock = None;
            (served.address, served.listening.connections())
        };
        let gone = closing.iter().map(gone).collect();
        closed.map(|()| gone)
    }

    /// Gives every shard an order and waits for their answers. A shard that does not answer keeps none of the others from
    /// the order.
    fn order(&mut self, mut order: impl FnMut(usize) -> Option<Order<TcpListener>>) -> Result<(), NoAnswer> {
        let mut done = Ok(());
        for (shard, desk) in self.desks.iter_mut().enumerate() {
            if let Some(order) = order(shard) {
                done = done.and(desk.put(order));
            }
        }
        self.wake();
        let until = Instant::now() + ORDER_PATIENCE;
        self.desks.iter_mut().fold(done, |done, desk| done.and(desk.wait(until)))
    }
}

impl Gatekeeping {
    /// The number that a file of users has for as long as the process lives.
    fn number(&self, path: &std::path::Path) -> Option<usize> {
        self.files.iter().position(|known| known == path)
    }

    /// Users by the number of their file, which the doors of `policy` have from here on. A file that is not read any more
    /// has no users.
    fn number_users(&mut self, files: &[std::path::PathBuf], policy: &mut Policy) -> Arc<[Users]> {
        for path in files {
            if self.number(path).is_none() {
                self.files.push(path.clone());
            }
        }
        for door in &mut policy.doors {
            let path = door.users.and_then(|at| files.get(usize::from(at)));
            door.users = path.and_then(|path| self.number(path)).map(|number| number as u16);
        }
        let mut all: Vec<Users> = self.files.iter().map(|_| Users::default()).collect();
        for (path, users) in files.iter().zip(policy.users.iter()) {
            if let Some(number) = self.number(path) {
                all[number] = users.clone();
            }
        }
        policy.users = all.into();
        Arc::clone(&policy.users)
    }

    /// The threads that hash, which a broker without users does without.
    pub(super) fn start_hashing(&mut self, kernel: &crate::io::kernel::Kernel) -> Result<(), StartError> {
        for (index, (hasher, seat)) in self.hashers.drain(..).enumerate() {
            // On a machine without any idle CPU one thread still has a little time.
            let haste = if index == 0 { sockets::go_last } else { sockets::go_idle };
            super::start_hashing(hasher, seat, kernel.clone(), self.posts.clone(), haste)?;
        }
        Ok(())
    }
}
