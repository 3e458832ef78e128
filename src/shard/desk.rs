//! A shard's desk: where other threads put down what they want of the shard. The shard takes it once a turn.
//!
//! Two kinds of writers use it. The one control thread puts orders down ([`Control`]), and the shard answers each order.
//! The threads that hash passwords put down what became of a login ([`Post`]), and get no answer. A writer wakes the
//! shard afterwards, with its doorbell. One counter says how much was ever put down, so a turn with an empty desk costs
//! one relaxed load.
//!
//! Everything is taken in the order in which it was put down. The answer to an order says that the shard acts by it from
//! now on. A turn takes the desk before anything else, so a packet that is read in that turn meets the new settings.
//!
//! A stop never waits for a place on the desk: [`Order::Drain`] and [`Order::Abandon`] have one each that no other order
//! may use.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::Instant;

use crate::access::{Answer, Policy};
use crate::clock::Millis;
use crate::io::{Io, ListenerId};
use crate::limits::Limits;

use super::listeners::Listening;
use super::order::Intake;
use super::{Core, Listener, Shard};

/// Orders on a desk that are not answered, at most; the control thread waits for the answers to one order before it gives
/// the next. A drain and an abandonment have a place each beyond that.
const DESK_ORDERS_MAX: usize = 16;
const ROOM_FOR_DRAIN: usize = DESK_ORDERS_MAX + 1;
const ROOM_FOR_ABANDON: usize = ROOM_FOR_DRAIN + 1;

/// What the control thread wants of a shard. `L` is a listening socket.
#[derive(Debug)]
pub enum Order<L> {
    /// Other settings, from now on.
    Settings(Box<NewSettings>),
    /// Further listening sockets; what is behind them came with [`Order::Settings`].
    Open(Vec<(ListenerId, L)>),
    /// Listening sockets are closed. Their clients stay. Answered once they are closed.
    Close(Vec<ListenerId>),
    /// The shard drains: no new connections, wills, DISCONNECT 0x8B. Answered once it has begun; [`super::Turn::Over`]
    /// says when it is done.
    Drain,
    /// The shard ends at once and leaves everything as it is.
    Abandon,
}

/// What holds from now on.
#[derive(Clone, Debug)]
pub struct NewSettings {
    pub limits: Limits,
    /// All listeners by [`ListenerId`]: no fewer than before, those that are closed included.
    pub listeners: Vec<Listening>,
    /// It has a door for each of the listeners.
    pub policy: Arc<Policy>,
    pub sys_interval_ms: Millis,
}

/// What lies on a desk.
#[derive(Debug)]
pub(super) enum Paper<L> {
    Order(Order<L>),
    /// What became of a login that this shard asked about.
    Login(Answer),
}

/// How many papers were ever put down. Alone in its cache lines: its shard reads it in each turn.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU32);

/// The shard's side of its desk.
#[derive(Debug)]
pub struct Desk<L> {
    put: Arc<Count>,
    taken: u32,
    papers: Receiver<Paper<L>>,
    answers: SyncSender<()>,
    /// Orders to close that are answered once everything is closed.
    closings: u32,
}

/// The control thread's side of one desk.
#[derive(Debug)]
pub struct Control<L> {
    post: Post<L>,
    answers: Receiver<()>,
    /// Orders that are not answered.
    open: usize,
}

/// A way to one desk for a thread that decides logins. A desk has at most one such answer for each login that waits,
/// and the queue of those is bounded.
#[derive(Debug)]
pub struct Post<L> {
    put: Arc<Count>,
    papers: Sender<Paper<L>>,
}

/// No answer came in time, or the shard is gone.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct NoAnswer;

/// Both sides of a new desk.
pub fn desk<L>() -> (Control<L>, Desk<L>) {
    let put = Arc::new(Count::default());
    let (sender, papers) = mpsc::channel();
    let (answer, answers) = mpsc::sync_channel(ROOM_FOR_ABANDON);
    let desk = Desk { put: Arc::clone(&put), taken: 0, papers, answers: answer, closings: 0 };
    (Control { post: Post { put, papers: sender }, answers, open: 0 }, desk)
}

impl<L> Control<L> {
    /// Puts an order down; the shard has to be woken.
    ///
    /// # Errors
    /// The desk is full of orders that were not answered in time, or the shard is gone.
    pub fn put(&mut self, order: Order<L>) -> Result<(), NoAnswer> {
        let room = match order {
            Order::Settings(_) | Order::Open(_) | Order::Close(_) => DESK_ORDERS_MAX,
            Order::Drain => ROOM_FOR_DRAIN,
            Order::Abandon => ROOM_FOR_ABANDON,
        };
        self.take_answers();
        if self.open >= room || !self.post.put_down(Paper::Order(order)) {
            return Err(NoAnswer);
        }
        self.open += 1;
        Ok(())
    }

    /// A way to this desk for a thread that decides logins.
    pub fn post(&self) -> Post<L> {
        self.post.clone()
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
        self.take_answers();
        self.open == 0
    }

    fn take_answers(&mut self) {
        while self.open > 0 && self.answers.try_recv().is_ok() {
            self.open -= 1;
        }
    }
}

// Derived, it would ask for sockets that can be cloned.
impl<L> Clone for Post<L> {
    fn clone(&self) -> Post<L> {
        Post { put: Arc::clone(&self.put), papers: self.papers.clone() }
    }
}

impl<L> Post<L> {
    /// Puts down what became of a login. False if the shard is gone; otherwise it has to be woken.
    #[must_use]
    pub fn put(&self, answer: Answer) -> bool {
        self.put_down(Paper::Login(answer))
    }

    fn put_down(&self, paper: Paper<L>) -> bool {
        if self.papers.send(paper).is_err() {
            return false;
        }
        // Counted once it lies there, so that a shard that sees the count finds the paper.
        self.put.0.fetch_add(1, Ordering::Release);
        true
    }
}

impl<L> Desk<L> {
    #[inline(always)]
    pub(super) fn has_papers(&self) -> bool {
        self.put.0.load(Ordering::Relaxed) != self.taken
    }

    /// How far a turn may take: what is put down meanwhile is for the next turn.
    fn counted(&self) -> u32 {
        self.put.0.load(Ordering::Acquire)
    }

    pub(super) fn take(&mut self, until: u32) -> Option<Paper<L>> {
        if self.taken == until {
            return None;
        }
        // This may take a paper that is not counted yet, and leave one behind it that is. The writer of the first counts it
        // next and wakes the shard, which then finds the other.
        let paper = self.papers.try_recv().ok()?;
        self.taken = self.taken.wrapping_add(1);
        Some(paper)
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

    /// Does what other threads want. Breaks off if the shard is to end at once.
    #[cold]
    pub(super) fn take_papers(&mut self, intake: &mut Intake) -> ControlFlow<()> {
        let until = self.desk.as_ref().map_or(0, Desk::counted);
        while let Some(desk) = &mut self.desk
            && let Some(paper) = intake.paper(desk, until)
        {
            let order = match paper {
                Paper::Order(order) => order,
                Paper::Login(answer) => {
                    let heard = self.core.hear(intake);
                    self.core.take_answer(answer, heard);
                    continue;
                }
            };
            match order {
                Order::Settings(settings) => {
                    self.core.hold_by(*settings);
                    desk.answer();
                }
                Order::Open(sockets) => {
                    for (listener, socket) in sockets {
                        debug_assert!(
                            self.core.local.env.access.has_door(listener.0),
                            "{listener:?} has no rules yet"
                        );
                        let Some(state) = self.core.local.clients.listeners.get_mut(usize::from(listener.0))
                        else {
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
                        let Some(state) = self.core.local.clients.listeners.get_mut(usize::from(id.0)) else {
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
                Order::Drain => {
                    desk.answer();
                    self.begin_stop();
                }
                Order::Abandon => {
                    desk.answer();
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Closes listening sockets that do not accept any more, and says so once all are closed.
    pub(super) fn close_silent(&mut self) {
        let Some(desk) = self.desk.as_mut().filter(|desk| desk.closings > 0) else { return };
        for (index, state) in self.core.local.clients.listeners.iter_mut().enumerate() {
            if *state == Listener::Silent {
                *state = Listener::Closed;
                self.io.unlisten(ListenerId(index as u16));
            }
        }
        if !self.core.local.clients.listeners.contains(&Listener::Closing) {
            (0..std::mem::take(&mut desk.closings)).for_each(|_| desk.answer());
        }
    }
}

impl Core {
    /// These settings hold for whatever is decided from now on. What was acknowledged or promised before stays.
    fn hold_by(&mut self, settings: NewSettings) {
        let NewSettings { limits, listeners, policy, sys_interval_ms } = settings;
        debug_assert!(listeners.len() >= self.local.clients.listening.len(), "a listener keeps its number");
        self.local.env.access.replace(policy);
        self.local.env.limits = limits;
        self.local.env.decode_limits =
            super::decode_limits(&limits, self.local.env.decode_limits.topic_alias_max);
        self.local.env.listener_limits = super::listeners::limits(&listeners, &limits);
        self.local.clients.listeners.resize(listeners.len(), Listener::Closed);
        self.local.clients.listening = listeners;
        self.set_sys_interval(sys_interval_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Outcome;
    use crate::memory::Key;

    fn take(desk: &mut Desk<u8>) -> Option<Paper<u8>> {
        let until = desk.counted();
        desk.take(until)
    }

    fn answer(index: u32) -> Answer {
        Answer { connection: Key { index, generation: 1 }, outcome: Outcome::Late }
    }

    #[test]
    fn orders_are_taken_in_order_and_each_is_answered() {
        let (mut control, mut desk) = desk::<u8>();
        assert!(!desk.has_papers() && control.is_answered());
        control.put(Order::Open(vec![(ListenerId(1), 7)])).unwrap();
        control.put(Order::Close(vec![ListenerId(1)])).unwrap();
        assert!(desk.has_papers() && !control.is_answered());
        assert!(matches!(take(&mut desk), Some(Paper::Order(Order::Open(_)))));
        assert!(matches!(take(&mut desk), Some(Paper::Order(Order::Close(_)))));
        assert!(take(&mut desk).is_none() && !desk.has_papers());
        desk.answer();
        assert!(!control.is_answered());
        assert_eq!(control.wait(Instant::now()), Err(NoAnswer));
        desk.answer();
        assert_eq!(control.wait(Instant::now()), Ok(()));
        control.put(Order::Drain).unwrap();
        drop(desk);
        assert_eq!(control.wait(Instant::now()), Err(NoAnswer));
        assert_eq!(control.put(Order::Abandon), Err(NoAnswer), "nobody takes it");
    }

    #[test]
    fn a_full_desk_has_room_for_a_drain_and_an_abandonment() {
        let (mut control, mut desk) = desk::<u8>();
        for _ in 0..DESK_ORDERS_MAX {
            control.put(Order::Close(Vec::new())).unwrap();
        }
        assert_eq!(control.put(Order::Close(Vec::new())), Err(NoAnswer), "a full desk");
        control.put(Order::Drain).unwrap();
        assert_eq!(control.put(Order::Drain), Err(NoAnswer), "the other place is for an abandonment");
        control.put(Order::Abandon).unwrap();
        for _ in 0..DESK_ORDERS_MAX {
            assert!(matches!(take(&mut desk), Some(Paper::Order(Order::Close(_)))));
        }
        assert!(matches!(take(&mut desk), Some(Paper::Order(Order::Drain))));
        assert!(matches!(take(&mut desk), Some(Paper::Order(Order::Abandon))));
        (0..ROOM_FOR_ABANDON).for_each(|_| desk.answer());
        assert_eq!(control.wait(Instant::now()), Ok(()), "each answer had room");
        control.put(Order::Close(Vec::new())).unwrap();
    }

    #[test]
    fn answered_orders_make_room_without_a_wait() {
        let (mut control, mut desk) = desk::<u8>();
        for _ in 0..3 * DESK_ORDERS_MAX {
            control.put(Order::Close(Vec::new())).unwrap();
            assert!(take(&mut desk).is_some());
            desk.answer();
        }
    }

    #[test]
    fn logins_and_orders_come_in_one_sequence_and_a_turn_takes_what_was_there() {
        let (mut control, mut desk) = desk::<u8>();
        let (post, other) = (control.post(), control.post());
        assert!(post.put(answer(1)));
        control.put(Order::Drain).unwrap();
        assert!(other.put(answer(2)));
        let until = desk.counted();
        assert!(post.put(answer(3)));
        assert!(matches!(desk.take(until), Some(Paper::Login(login)) if login == answer(1)));
        assert!(matches!(desk.take(until), Some(Paper::Order(Order::Drain))));
        assert!(matches!(desk.take(until), Some(Paper::Login(login)) if login == answer(2)));
        assert!(desk.take(until).is_none() && desk.has_papers(), "the third is for the next turn");
        assert!(matches!(take(&mut desk), Some(Paper::Login(login)) if login == answer(3)));
        assert!(!desk.has_papers());
        drop(desk);
        assert!(!post.put(answer(4)), "the shard is gone");
    }

    #[test]
    fn what_many_threads_put_down_is_taken_once_each() {
        const EACH: u32 = if cfg!(miri) { 20 } else { 2000 };
        let (control, mut desk) = desk::<u8>();
        let threads: Vec<_> = (0..4)
            .map(|thread| (thread, control.post()))
            .map(|(thread, post)| {
                std::thread::spawn(move || (0..EACH).all(|at| post.put(answer(thread * EACH + at))))
            })
            .collect();
        let mut taken = vec![0; 4 * EACH as usize];
        while taken.iter().sum::<u32>() < 4 * EACH {
            if !desk.has_papers() {
                std::thread::yield_now();
                continue;
            }
            let until = desk.counted();
            while let Some(paper) = desk.take(until) {
                let Paper::Login(login) = paper else { unreachable!("nobody gave an order") };
                taken[login.connection.index as usize] += 1;
            }
        }
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
        assert!(taken.iter().all(|times| *times == 1) && !desk.has_papers());
    }
}
