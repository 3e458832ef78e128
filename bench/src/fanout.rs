//! One message to many sessions, without a shard around them.

use std::sync::Arc;

use ringmq::clock::NEVER;
use ringmq::limits::Limits;
use ringmq::memory::{Budget, CLASSES, MessageView, Outbox, Pool};
use ringmq::session::{
    Acked, Cx, Delivered, Drops, Fanout, Grant, Link, Retain, Session, Share, Spares, Variants, Wire,
};
use ringmq::wire::{Qos, Version};

use crate::{Prepared, Scale};

const SESSIONS: usize = 1000;

struct Receiver {
    session: Session,
    link: Link,
    outbox: Outbox,
}

pub(crate) fn qos0(_: Scale) -> Prepared {
    prepare(Qos::AtMostOnce)
}

pub(crate) fn qos1(_: Scale) -> Prepared {
    prepare(Qos::AtLeastOnce)
}

fn prepare(qos: Qos) -> Prepared {
    let limits = Limits::default();
    let mut budget = Budget::new(Arc::clone(&Pool::new([1 << 40; CLASSES])));
    let mut receivers: Vec<Receiver> = (0..SESSIONS)
        .map(|_| Receiver {
            session: Session::new(),
            link: Link::new(Version::V5, u16::MAX, u32::MAX, 0, &limits),
            outbox: Outbox::default(),
        })
        .collect();
    let mut variants = Variants::new();
    let mut spares = Spares::default();
    let mut packet_id = 0u16;
    Prepared::new(SESSIONS, move |meter| {
        let message = MessageView {
            topic: "bench/a1b2c3d4/fan-out/0",
            properties: &[],
            payload: &[7; 64],
            qos,
            retain: false,
            expires_at: NEVER,
            publisher: 1,
            whole: None,
            origin: 0,
            is_repeat: false,
        };
        packet_id = packet_id.wrapping_add(1).max(1);
        meter.measure(|| {
            let mut drops = Drops::default();
            let mut cx = Cx {
                now: 1,
                limits: &limits,
                budget: &mut budget,
                drops: &mut drops,
                spares: &mut spares,
                notes: None,
            };
            let mut fanout = Fanout::new(message, &mut variants);
            let grant = Grant { qos, retain: Retain::Clear, identifiers: &[], share: Share::No };
            for Receiver { session, link, outbox } in &mut receivers {
                let wire = Wire { link, outbox, send_room: 1 << 20 };
                assert_eq!(session.deliver(Some(wire), &mut fanout, &grant, &mut cx), Delivered::Sent);
            }
            if qos == Qos::AtLeastOnce {
                for Receiver { session, link, .. } in &mut receivers {
                    assert_eq!(session.handle_puback(link, packet_id, &mut cx), Acked::Completed);
                }
            }
        });
        for receiver in [0, 1, SESSIONS - 1] {
            meter.note(receivers[receiver].outbox.bytes_mut());
        }
        // Its memory stays, as that of a busy connection does.
        receivers.iter_mut().for_each(|receiver| receiver.outbox.bytes_mut().clear());
    })
}
