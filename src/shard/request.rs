//! A CONNECT that was read: what its client asks for. It is decoded once, and stays with the connection until it is answered.

use crate::access::Identity;
use crate::clock::Millis;
use crate::memory::ShardId;
use crate::wire::{Connect, Version};

use super::will::Will;

#[derive(Debug)]
pub(super) struct Request {
    pub version: Version,
    /// Empty if the client wants one assigned.
    pub client_id: Box<str>,
    /// As the client calls itself; only for the log.
    pub user_name: Box<str>,
    /// Who the client is; nobody as long as its password is verified.
    pub identity: Identity,
    pub clean_start: bool,
    /// Seconds; 0 turns it off.
    pub keep_alive_s: u16,
    pub session_expiry_s: u32,
    pub receive_maximum: u16,
    pub packet_size_max: u32,
    pub topic_alias_max: u16,
    pub will: Option<Box<Will>>,
    /// The shard where the client is at home.
    pub home: ShardId,
    /// When it was read.
    pub read_at: Millis,
}

impl Request {
    pub fn new(connect: &Connect<'_>, identity: Identity, home: ShardId, now: Millis) -> Request {
        Request {
            version: connect.version,
            client_id: connect.client_id.into(),
            user_name: connect.user_name.unwrap_or_default().into(),
            identity,
            clean_start: connect.clean_start,
            keep_alive_s: connect.keep_alive_s,
            session_expiry_s: connect.session_expiry_s,
            receive_maximum: connect.receive_maximum,
            packet_size_max: connect.packet_size_max,
            topic_alias_max: connect.topic_alias_max,
            will: connect.will.as_ref().map(|will| Box::new(Will::new(will))),
            home,
            read_at: now,
        }
    }

    /// Bytes that it keeps.
    pub fn cost(&self) -> usize {
        let will = self.will.as_ref().map_or(0, |will| will.cost());
        size_of::<Request>() + self.client_id.len() + self.user_name.len() + will
    }

    /// The name of the client's user: who it was found to be, else what it calls itself.
    pub fn user(&self) -> &str {
        self.identity.user.as_deref().unwrap_or(&self.user_name)
    }
}
