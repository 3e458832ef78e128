//! Runs at QoS 1 and 2, where every message has a state of its own at each receiver.
//!
//! Receiver by receiver: each gets at once as many of the messages as it can be sent in the form in which they came. Who
//! cannot have all of them so gets the rest message by message, together with the others of that kind: other forms, a full
//! quota, no connection, no right to them. What several receivers keep is kept once.

use crate::memory::{Key, Message, MessageView, Outbox};
use crate::session::{Ingress, KeptRun, RunEntry, Session};
use crate::topic::Route;
use crate::wire::{AckKind, Qos, Repeat, Repetition};

use super::Core;
use super::deliver::Receiver;
use super::publish::Publisher;
use super::run::view;

/// Memory that is reused from run to run.
#[derive(Default)]
pub(super) struct Scratch {
    pub entries: Vec<RunEntry>,
    left: Vec<(Receiver, usize)>,
    shared: Vec<Message>,
}

impl Scratch {
    /// Elements of each list that memory is kept for.
    const LEN_MAX: usize = 4096;

    pub fn emptied<T>(mut list: Vec<T>) -> Vec<T> {
        list.clear();
        list.shrink_to(Self::LEN_MAX);
        list
    }
}

impl Core {
    /// What `handle_run` does at QoS 1 and 2.
    pub(super) fn handle_run_acknowledged(
        &mut self,
        from: Publisher,
        repeat: &Repeat<'_>,
        route: &Route,
        input: &[u8],
    ) -> usize {
        // Who is away keeps what it gets for long. What comes alone is shared with the other shards, a run is not.
        let mut here = route.local.iter().filter_map(|key| self.sessions.router.subscription(*key));
        let goes = match route.remote.is_empty() {
            true => here.next().is_some(),
            false => here.all(|subscription| self.is_connected(subscription.session)),
        };
        if !goes
            || !self.sessions.may_publish(from.session, &route.topic, &mut self.env)
            || self.clients.holds_replies(from.connection)
        {
            return 0; // Then each goes by itself.
        }
        let message = MessageView { qos: repeat.qos(), ..view(&route.topic, &[], from.client_hash) };
        let mut entries = std::mem::take(&mut self.scratch.run.entries);
        let used = self.take_run_in(from, repeat, input, &mut entries);
        if !entries.is_empty() {
            let run = KeptRun { entries: &entries, input, message, version: from.version };
            self.deliver_kept_run(&run, route);
            self.pass_entries(from, repeat, route, (&entries, &input[..used]));
            let kind = if repeat.qos() == Qos::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
            self.clients.stage_acks(
                from.connection,
                kind,
                entries.iter().map(|entry| entry.packet_id),
                &self.env,
            );
        }
        self.scratch.run.entries = Scratch::emptied(entries);
        used
    }

    fn is_connected(&self, session: Key) -> bool {
        self.sessions.arena.get(session).is_some_and(|slot| slot.connection.is_some())
    }

    /// The publisher's side of a run: which packets there are, and which of them are new messages. Stops before one that
    /// has to be refused. Returns the bytes.
    fn take_run_in(
        &mut self,
        from: Publisher,
        repeat: &Repeat<'_>,
        input: &[u8],
        entries: &mut Vec<RunEntry>,
    ) -> usize {
        let mut used = 0;
        let mut payload_bytes = 0;
        let packet_size_max = self.clients.packet_size_max(from.connection);
        self.with_session(from.connection, |session, link, _| {
            while let Some(next) = repeat.next(&input[used..], packet_size_max) {
                if next.payload_len >= Outbox::SPLICE_MIN {
                    break;
                }
                let is_new = match session.handle_publish(link, repeat.qos(), next.packet_id) {
                    Ingress::Route => true,
                    Ingress::Repeat => false,
                    Ingress::ReceiveMaximumExceeded => break,
                };
                Session::acknowledge_publish(link, repeat.qos());
                let Repetition { len, payload_len, packet_id } = next;
                entries.push(RunEntry { at: used, len, payload_len, packet_id, is_new });
                used += len;
                payload_bytes += payload_len as u64;
            }
        });
        let counters = self.env.counters();
        counters.packets_received_total.add(entries.len() as u64);
        counters.publish_received_total.add(entries.len() as u64);
        counters.publish_bytes_received_total.add(payload_bytes);
        used
    }

    /// To every subscription of `route` that is here; no session has two of them.
    pub(super) fn deliver_kept_run(&mut self, run: &KeptRun<'_>, route: &Route) {
        let mut left = std::mem::take(&mut self.scratch.run.left);
        let mut shared = std::mem::take(&mut self.scratch.run.shared);
        let several = route.local.len() > 1;
        self.each_receiver(route, &run.message, |core, receiver| {
            let sent = core.deliver_at_once(receiver, run, several.then_some(&mut shared));
            if sent < run.entries.len() {
                left.push((*receiver, sent));
            }
        });
        if !left.is_empty() {
            self.deliver_left(run, &left, &shared);
        }
        self.scratch.run.left = Scratch::emptied(left);
        self.scratch.run.shared = Scratch::emptied(shared);
    }

    /// Returns how many of the messages `receiver` was sent, those at the front.
    fn deliver_at_once(
        &mut self,
        receiver: &Receiver,
        run: &KeptRun<'_>,
        shared: Option<&mut Vec<Message>>,
    ) -> usize {
        // At another level it would have another form.
        if receiver.qos != run.message.qos
            || !self.sessions.may_receive(receiver.session, run.message.topic, &mut self.env)
            || self.sessions.has_cursors(receiver.session)
        {
            return 0;
        }
        let delivered = self.with_wire(receiver.session, |session, mut wire, cx| {
            session.deliver_run(&mut wire, run, shared, &receiver.grant(), cx)
        });
        let Some((key, sent)) = delivered else { return 0 };
        self.sent_of_run(key, sent as u64, run.payload_bytes(sent));
        sent
    }

    /// What each receiver was not sent at once, from that message on.
    fn deliver_left(&mut self, run: &KeptRun<'_>, left: &[(Receiver, usize)], shared: &[Message]) {
        let mut variants = self.scratch.variants.take().unwrap_or_default();
        for (at, entry) in run.entries.iter().enumerate().filter(|(_, entry)| entry.is_new) {
            let mut fanout = run.fanout(entry, shared.get(at), &mut variants);
            for (place, (receiver, from)) in left.iter().enumerate() {
                if place + 1 == left.len() {
                    fanout.comes_to_its_end();
                }
                if *from <= at {
                    let matched = std::slice::from_ref(&receiver.subscription);
                    self.deliver(receiver.session, &mut fanout, &receiver.grant(), matched);
                }
            }
        }
        self.scratch.variants = Some(variants);
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;

    #[test]
    fn memory_for_many_receivers_is_given_back() {
        let few = Scratch::emptied(Vec::<u32>::with_capacity(100));
        assert_eq!((few.len(), few.capacity()), (0, 100));
        let many = Scratch::emptied(vec![0_u32; 1_000_000]);
        assert!(many.is_empty() && many.capacity() <= 2 * Scratch::LEN_MAX);
    }
}
