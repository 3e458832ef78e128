//! A shard's desk: the one control thread puts orders on it, the shard takes them once a turn and answers each.
//!
//! Both ways are bounded, and each way has one writer and one reader. A turn without orders costs one relaxed load. Who
//! puts an order down wakes the shard with its doorbell.
//!
//! Orders are carried out one after the other, in the order in which they were put down. An answer says that the shard acts
//! by the order from now on: what the control thread publishes before it puts an order down (a new policy, say) is in
//! force on that shard by then too, because a turn takes orders before it looks for such things.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Instant;

use crate::clock::Millis;
use crate::io::{Io, ListenerId};
use crate::limits::Limits;

use super::listeners::Listening;
use super::{Core, Listener, Shard};

/// Orders that lie on a desk at most, and answers that wait there; the control thread waits for the answers to one order
/// before it gives the next.
const DESK_ORDERS_MAX: usize = 16;

/// What the control thread wants of a shard. `L` is a listening socket.
#[derive(Debug)]
pub enum Order<L> {
    /// Other settings, from now on.
    Settings(Box<NewSettings>),
    /// Further listening sockets; what is behind them came with [`Order::Settings`].
    Open(Vec<(ListenerId, L)>),
    /// Listening sockets are closed. Their clients stay. Answered once they are closed.
    Close(Vec<ListenerId>),
}

/// What holds from now on.
#[derive(Clone, Debug)]
pub struct NewSettings {
    pub limits: Limits,
    /// All listeners by [`ListenerId`]: no fewer than before, those that are closed included.
    pub listeners: Vec<Listening>,
    pub sys_interval_ms: Millis,
}

/// The shard's side of its desk.
#[derive(Debug)]
pub struct Desk<L> {
    /// Orders that were ever put down.
    put: Arc<AtomicU32>,
    taken: u32,
    orders: Receiver<Order<L>>,
    answers: SyncSender<()>,
    /// Orders to close that are answered once everything is closed.
    closings: u32,
}

/// The control thread's side of one desk.
#[derive(Debug)]
pub struct Control<L> {
    put: Arc<AtomicU32>,
    orders: SyncSender<Order<L>>,
    answers: Receiver<()>,
    /// Orders that are not answered.
    open: usize,
}

/// No answer came in time, or the shard is gone.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct NoAnswer;

/// Both sides of a new desk.
pub fn desk<L>() -> (Control<L>, Desk<L>) {
    let put = Arc::new(AtomicU32::new(0));
    let (orders, taken) = mpsc::sync_channel(DESK_ORDERS_MAX);
    let (answer, answers) = mpsc::sync_channel(DESK_ORDERS_MAX);
    let desk = Desk { put: Arc::clone(&put), taken: 0, orders: taken, answers: answer, closings: 0 };
    (Control { put, orders, answers, open: 0 }, desk)
}

impl<L> Control<L> {
    /// Puts an order down; the shard has to be woken.
    ///
    /// # Errors
    /// The desk is full of orders that were not answered in time, or the shard is gone.
    pub fn put(&mut self, order: Order<L>) -> Result<(), NoAnswer> {
        if self.open == DESK_ORDERS_MAX {
            return Err(NoAnswer);
        }
        self.orders.try_send(order).map_err(|_| NoAnswer)?;
        self.open += 1;
        self.put.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Waits until all orders are answered.
    ///
    /// # Errors
    /// They were not at this time. They may be later, and the next wait is for those too.
    pub fn wait(&mut self, until: Instant) -> Result<(), NoAnswer> {
        while self.open > 0 {
            let left = until.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(()) => self.open -= 1,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(NoAnswer),
            }
        }
        Ok(())
    }

    /// Whether all orders are answered, without waiting.
    pub fn is_answered(&mut self) -> bool {
        while self.open > 0 && self.answers.try_recv().is_ok() {
            self.open -= 1;
        }
        self.open == 0
    }
}

impl<L> Desk<L> {
    #[inline(always)]
    pub(super) fn has_orders(&self) -> bool {
        self.put.load(Ordering::Relaxed) != self.taken
    }

    fn take(&mut self) -> Option<Order<L>> {
        // The channel orders what was written before an order was put down.
        let order = self.orders.try_recv().ok()?;
        self.taken = self.taken.wrapping_add(1);
        Some(order)
    }

    /// There is always room: as many orders as that are on their way at most.
    fn answer(&self) {
        let _ = self.answers.try_send(());
    }
}

impl<I: Io> Shard<I> {
    /// Gives the shard its desk.
    #[must_use]
    pub fn with_desk(mut self, desk: Desk<I::Listener>) -> Shard<I> {
        self.desk = Some(desk);
        self
    }

    /// Does what the control thread wants.
    #[cold]
    pub(super) fn take_orders(&mut self) {
        while let Some(desk) = &mut self.desk
            && let Some(order) = desk.take()
        {
            match order {
                Order::Settings(settings) => {
                    self.core.hold_by(*settings);
                    desk.answer();
                }
                Order::Open(sockets) => {
                    for (listener, socket) in sockets {
                        let Some(state) = self.core.clients.listeners.get_mut(usize::from(listener.0)) else {
                            continue;
                        };
                        debug_assert_eq!(*state, Listener::Closed, "{listener:?} is open");
                        self.io.listen(listener, socket);
                        *state = Listener::Ended; // and armed at the end of this turn
                    }
                    desk.answer();
                }
                Order::Close(listeners) => {
                    desk.closings += 1;
                    for id in listeners {
                        let Some(state) = self.core.clients.listeners.get_mut(usize::from(id.0)) else {
                            continue;
                        };
                        *state = match *state {
                            Listener::Accepting => {
                                self.io.accept_cancel(id);
                                Listener::Closing
                            }
                            Listener::Cancelling | Listener::Closing => Listener::Closing,
                            Listener::Ended | Listener::Resting(_) | Listener::Silent => Listener::Silent,
                            Listener::Closed => Listener::Closed,
                        };
                    }
                }
            }
        }
    }

    /// Closes listening sockets that do not accept any more, and says so once all are closed.
    pub(super) fn close_silent(&mut self) {
        let Some(desk) = self.desk.as_mut().filter(|desk| desk.closings > 0) else { return };
        for (index, state) in self.core.clients.listeners.iter_mut().enumerate() {
            if *state == Listener::Silent {
                *state = Listener::Closed;
                self.io.unlisten(ListenerId(index as u16));
            }
        }
        if !self.core.clients.listeners.contains(&Listener::Closing) {
            (0..std::mem::take(&mut desk.closings)).for_each(|_| desk.answer());
        }
    }
}

impl Core {
    /// These settings hold for whatever is decided from now on. What was acknowledged or promised before stays.
    fn hold_by(&mut self, settings: NewSettings) {
        let NewSettings { limits, listeners, sys_interval_ms } = settings;
        debug_assert!(listeners.len() >= self.clients.listening.len(), "a listener keeps its number");
        self.env.limits = limits;
        self.env.decode_limits = super::decode_limits(&limits, self.env.decode_limits.topic_alias_max);
        self.env.listener_limits = super::listeners::limits(&listeners, &limits);
        self.clients.listeners.resize(listeners.len(), Listener::Closed);
        self.clients.listening = listeners;
        self.set_sys_interval(sys_interval_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_taken_in_order_and_each_is_answered() {
        let (mut control, mut desk) = desk::<u8>();
        assert!(!desk.has_orders() && control.is_answered());
        control.put(Order::Open(vec![(ListenerId(1), 7)])).unwrap();
        control.put(Order::Close(vec![ListenerId(1)])).unwrap();
        assert!(desk.has_orders() && !control.is_answered());
        assert!(matches!(desk.take(), Some(Order::Open(_))));
        assert!(matches!(desk.take(), Some(Order::Close(_))));
        assert!(desk.take().is_none() && !desk.has_orders());
        desk.answer();
        assert!(!control.is_answered());
        assert_eq!(control.wait(Instant::now()), Err(NoAnswer));
        desk.answer();
        assert_eq!(control.wait(Instant::now()), Ok(()));
        for _ in 0..DESK_ORDERS_MAX {
            control.put(Order::Close(Vec::new())).unwrap();
        }
        assert_eq!(control.put(Order::Close(Vec::new())), Err(NoAnswer), "a full desk");
        drop(desk);
        assert_eq!(control.wait(Instant::now()), Err(NoAnswer));
    }
}
