//! One test per rule, named after it.

mod batch;
mod flows;
mod forms;
mod ingress;
mod random;
mod waiting;

use super::{Delivered, DropReason};

const QUEUED: Delivered = Delivered::Queued;
const SENT: Delivered = Delivered::Sent;

fn dropped(reason: DropReason) -> Delivered {
    Delivered::Dropped(reason)
}
