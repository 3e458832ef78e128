//! A shard's exchange with the others: the rings to them, the logs of what each announces, and what waits for their progress.
//! It knows no word of MQTT.

use crate::mesh::{Announcements, Links};

use super::disk::Disk;
use super::env::Env;
use super::interest::{Announced, Interest};
use super::parcel::Parcel;
use super::waits::Waits;

pub(super) struct Exchange {
    pub links: Links<Parcel>,
    pub announcements: Announcements<Announced>,
    pub interest: Interest,
    pub waits: Waits,
    pub disk: Disk,
}

impl Exchange {
    pub fn new(env: &Env, links: Links<Parcel>, announcements: Announcements<Announced>) -> Exchange {
        Exchange {
            links,
            announcements,
            interest: Interest::new(),
            waits: Waits::new(env.shards, env.options.relay_window),
            disk: Disk::new(env.shards),
        }
    }
}
