//! The sessions of a shard, by Client Identifier, and their subscriptions. It knows no socket.

use std::collections::VecDeque;

use crate::memory::{Arena, Key, Table};
use crate::session::Spares;
use crate::topic::Router;

use super::env::Env;
use super::losses::Losses;
use super::slots::Slot;
use super::survey::Survey;

pub(super) struct Sessions {
    pub arena: Arena<Slot>,
    /// Indexes of sessions by keyed hash of the Client Identifier, which stays with the session.
    pub by_client_id: Table,
    pub router: Router,
    /// Bytes of the router that are charged to `Class::Subscription`.
    pub charged_topics: usize,
    /// Memory of sessions for reuse.
    pub spares: Spares,
    /// Sessions that are to end because their queue was full.
    pub overflowed: Vec<Key>,
    /// Sessions without a connection for which others wait.
    pub vacant: VecDeque<Key>,
    pub client_ids_assigned: u64,
    pub losses: Losses,
    pub survey: Survey,
}

impl Sessions {
    pub fn new(env: &Env) -> Sessions {
        let clients = env.options.clients_expected;
        Sessions {
            arena: Arena::with_capacity(clients),
            by_client_id: Table::default(),
            router: Router::new(env.keys, env.id, env.options.route_cache_entries).with_room(clients),
            charged_topics: 0,
            spares: Spares::default(),
            overflowed: Vec::new(),
            vacant: VecDeque::new(),
            client_ids_assigned: 0,
            losses: Losses::default(),
            survey: Survey::default(),
        }
    }
}
