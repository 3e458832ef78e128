//! The clients of a shard: their network connections, what is to be sent to them, and the listening sockets they come from.
//! It knows no session but by its key.

use std::collections::VecDeque;

use crate::memory::{Arena, Key};

use super::connection::Connection;
use super::env::Env;
use super::listeners::Listening;
use super::secure::Handshakes;
use super::terms::Told;
use super::{Listener, filters};

pub(super) struct Clients {
    pub connections: Arena<Connection>,
    /// Connections whose operations may have to change.
    pub dirty: Vec<Key>,
    /// Send buffers for reuse.
    pub spare_buffers: Vec<Vec<u8>>,
    /// Whose Keep Alive may have passed; what their sockets hold is looked at before they are closed.
    pub silent: Vec<Key>,
    /// Connections with a SUBSCRIBE or UNSUBSCRIBE that is acted upon in slices.
    pub filters: filters::Line,
    /// Accepted connections that wait for room on the way home.
    pub hand_offs: VecDeque<Key>,
    pub told: Told,
    pub handshakes: Handshakes,
    /// Bytes of the newest turn's sends whose end nobody waits for: charged, but shown as sent until a turn looks.
    pub quiet_bytes: u64,
    /// Whether each listening socket accepts.
    pub listeners: Vec<Listener>,
    /// What is behind them.
    pub listening: Vec<Listening>,
}

impl Clients {
    pub fn new(env: &Env, listening: Vec<Listening>) -> Clients {
        Clients {
            connections: Arena::with_capacity(env.options.clients_expected),
            dirty: Vec::new(),
            spare_buffers: Vec::new(),
            silent: Vec::new(),
            filters: filters::Line::new(),
            hand_offs: VecDeque::new(),
            told: Told::default(),
            handshakes: Handshakes::default(),
            quiet_bytes: 0,
            listeners: vec![Listener::Accepting; listening.len()],
            listening,
        }
    }
}
