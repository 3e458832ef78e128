//! One io_uring with everything that the kernel reads or writes behind its back, behind a safe type.
//!
//! Not a general wrapper: it knows TCP sockets in a table of direct descriptors (slots), one multishot receive and
//! one send per slot, and one buffer ring. It knows no MQTT word and keeps no state of a connection.
//!
//! Invariants
//! - Bytes in flight to the kernel are owned by `flights[slot]` until the send's last CQE; a slot has at most one.
//! - `in_flight` counts the operations that use memory of this ring. What they use is freed only when there is none.
//! - A receive buffer is the reader's between its CQE and `recycle`. `RecvBuf` cannot be copied and `recycle` takes
//!   it by value; a buffer goes back to the kernel only when the kernel has let go of it and no `RecvBuf` of it is left.
//! - `user_data` is packed and unpacked here only.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use socket2::SockAddr;

/// Submission queue entries; when full, the queue is submitted early.
const SQ_ENTRIES: u32 = 4096;
/// Completion queue entries. Beyond this the kernel keeps completions in a list of its own; none is lost.
const CQ_ENTRIES: u32 = 32_768;
/// Receive buffers with incremental use: each is filled by many receives.
const BUFFERS_INCREMENTAL: (u16, usize) = (64, 64 * 1024);
/// Receive buffers where the kernel (before 6.12) gives each receive a whole one.
const BUFFERS_PLAIN: (u16, usize) = (2048, 8 * 1024);
/// Completions after which a gathering wait ends early.
const GATHER_MAX: usize = 256;
const BUFFER_GROUP: u16 = 0;
const PAGE: usize = 4096;
/// Looks at the completion queue when a ring ends; one is enough unless the queue had overflown.
const DROP_ROUNDS: u32 = 64;
/// `IOU_PBUF_RING_INC` of linux/io_uring.h.
const PBUF_RING_INC: u16 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Op {
    Connect = 1,
    Recv = 2,
    Send = 3,
    Close = 4,
    Shutdown = 5,
    Cancel = 6,
    Wake = 7,
    Sent = 8,
}

fn token(op: Op, slot: u32) -> u64 {
    (op as u64) << 32 | u64::from(slot)
}

/// A stretch of a receive buffer that holds received bytes; give it back with [`Ring::recycle`].
#[derive(Debug)]
#[must_use]
pub struct RecvBuf {
    bid: u16,
    start: usize,
    len: usize,
}

/// What the kernel has finished.
#[derive(Debug)]
pub enum Completion {
    /// The connection of this slot stands, or why not.
    Connected { slot: u32, result: io::Result<()> },
    /// Bytes arrived. `armed` says whether the multishot receive goes on.
    Received { slot: u32, bytes: RecvBuf, armed: bool },
    /// The receive of this slot is over: end of stream (`Ok`) or the error.
    /// `ENOBUFS` means only that buffers ran short: arm it again.
    ReceiveEnded { slot: u32, result: io::Result<()> },
    /// The send is over; the buffer comes back for reuse, with the error if bytes remained unsent.
    Sent { slot: u32, buffer: Vec<u8>, result: io::Result<()> },
    /// The descriptor of this slot is closed and the slot free.
    Closed { slot: u32 },
    /// Another ring rang the bell.
    Woken,
}

struct Flight {
    buffer: Vec<u8>,
    sent: usize,
}

/// See the top of the file.
pub struct Ring {
    ring: IoUring,
    /// Connects, receives and sends whose last CQE has not come.
    in_flight: usize,
    buffers: ManuallyDrop<Buffers>,
    flights: Vec<Option<Flight>>,
    /// Addresses that connects point to; never changed after creation.
    targets: Box<[SockAddr]>,
    reaped: VecDeque<cqueue::Entry>,
}

impl Ring {
    /// A ring with a table of `slots` direct descriptors that can connect to the given targets.
    ///
    /// # Errors
    /// `EMFILE` if `slots` exceeds the limit of descriptors; what `io_uring_setup` says where io_uring is forbidden.
    pub fn new(slots: u32, targets: Vec<SockAddr>) -> io::Result<Ring> {
        let mut ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(CQ_ENTRIES)
            .setup_clamp()
            .build(SQ_ENTRIES)?;
        ring.submitter().register_files_sparse(slots)?;
        let buffers = ManuallyDrop::new(Buffers::register(&ring)?);
        // A faster way to name the ring in system calls; the kernel may lack it, and nothing else depends on it.
        let _ = ring.submitter().register_ring_fd();
        ring.completion().sync();
        let flights = (0..slots).map(|_| None).collect();
        Ok(Ring { ring, in_flight: 0, buffers, flights, targets: targets.into(), reaped: VecDeque::new() })
    }

    /// The descriptor by which other rings can ring this one's bell.
    pub fn bell(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        let uses_memory = uses_memory(entry.get_user_data());
        // SAFETY: every entry is built in this file, and what it points to is owned by `self` (`flights`, `targets`,
        // `buffers`) and stays unmoved until the operation's last CQE; `drop` leaks it if that has not come.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.submit()?;
        }
        self.in_flight += usize::from(uses_memory);
        Ok(())
    }

    /// Puts a socket into a slot and gives up the process's own descriptor.
    pub fn adopt(&mut self, slot: u32, socket: OwnedFd) -> io::Result<()> {
        self.ring.submitter().register_files_update(slot, &[socket.as_raw_fd()]).map(drop)
    }

    /// Starts to connect the socket in `slot` to the target with this index.
    pub fn connect(&mut self, slot: u32, target: usize) -> io::Result<()> {
        let address = &self.targets[target];
        let entry = opcode::Connect::new(types::Fixed(slot), address.as_ptr().cast(), address.len())
            .build()
            .user_data(token(Op::Connect, slot));
        self.push(entry)
    }

    /// Arms the multishot receive.
    pub fn receive(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(types::Fixed(slot), BUFFER_GROUP).build();
        self.push(entry.user_data(token(Op::Recv, slot)))
    }

    /// Arms one receive of at most `bytes_max` bytes.
    pub fn receive_once(&mut self, slot: u32, bytes_max: u32) -> io::Result<()> {
        let entry = opcode::Recv::new(types::Fixed(slot), std::ptr::null_mut(), bytes_max)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry.user_data(token(Op::Recv, slot)))
    }

    /// Sends the buffer whole; the caller waits for [`Completion::Sent`] before the next.
    pub fn send(&mut self, slot: u32, buffer: Vec<u8>) -> io::Result<()> {
        let flight = &mut self.flights[slot as usize];
        assert!(flight.is_none(), "one send in flight for each slot");
        *flight = Some(Flight { buffer, sent: 0 });
        self.send_rest(slot)
    }

    fn send_rest(&mut self, slot: u32) -> io::Result<()> {
        let flight = self.flights[slot as usize].as_ref().expect("called with a flight");
        let rest = &flight.buffer[flight.sent..];
        let entry = opcode::Send::new(types::Fixed(slot), rest.as_ptr(), rest.len().min(1 << 30) as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(entry.user_data(token(Op::Send, slot)))
    }

    /// Ends both directions: an armed receive then ends with [`Completion::ReceiveEnded`].
    pub fn shutdown(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::Shutdown::new(types::Fixed(slot), libc::SHUT_RDWR).build();
        self.push(entry.user_data(token(Op::Shutdown, slot)))
    }

    /// Cancels an armed receive, which then ends with `ECANCELED`.
    pub fn cancel_receive(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(token(Op::Recv, slot)).build();
        self.push(entry.user_data(token(Op::Cancel, slot)))
    }

    /// Cancels a connect that is under way, which then ends with `ECANCELED`.
    pub fn cancel_connect(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(token(Op::Connect, slot)).build();
        self.push(entry.user_data(token(Op::Cancel, slot)))
    }

    /// Closes the descriptor. Only when neither receive, send nor connect is in flight.
    pub fn close(&mut self, slot: u32) -> io::Result<()> {
        let entry = opcode::Close::new(types::Fixed(slot)).build();
        self.push(entry.user_data(token(Op::Close, slot)))
    }

    /// Wakes the owner of another ring out of its wait.
    pub fn ring_bell(&mut self, bell: RawFd) -> io::Result<()> {
        let entry = opcode::MsgRingData::new(types::Fd(bell), 0, token(Op::Wake, 0), None).build();
        self.push(entry.user_data(token(Op::Sent, 0)))
    }

    /// Hands everything to the kernel without waiting, and lets it do the work that it has put off.
    pub fn submit(&mut self) -> io::Result<()> {
        let busy = {
            let queue = self.ring.submission();
            !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
        };
        let result = if busy { self.ring.submit().map(drop) } else { Ok(()) };
        self.reap();
        harmless(result)
    }

    /// Hands everything to the kernel and waits for a completion, no longer than `timeout`.
    ///
    /// With `gather` it first waits for many completions at once, but not longer than that: fewer, larger batches.
    /// Kernels before 6.12 cannot, and do not.
    pub fn wait(&mut self, timeout: Duration, gather: Option<Duration>) -> io::Result<()> {
        let time = types::Timespec::from(timeout);
        let mut args = types::SubmitArgs::new().timespec(&time);
        let mut wanted = 1;
        if let Some(gather) = gather.filter(|_| self.ring.params().is_feature_min_timeout()) {
            args = args.min_wait_usec(gather.as_micros() as u32);
            wanted = GATHER_MAX;
        }
        let result = self.ring.submitter().submit_with_args(wanted, &args).map(drop);
        self.reap();
        harmless(result)
    }

    fn reap(&mut self) {
        let known = self.reaped.len();
        self.reaped.extend(self.ring.completion());
        let is_last = |cqe: &&cqueue::Entry| uses_memory(cqe.user_data()) && !cqueue::more(cqe.flags());
        self.in_flight -= self.reaped.range(known..).filter(is_last).count();
    }

    /// Whether [`Ring::take`] has something.
    #[inline]
    pub fn has_completions(&self) -> bool {
        !self.reaped.is_empty()
    }

    /// The next thing that the kernel has finished, in the order of the completion queue.
    pub fn take(&mut self) -> io::Result<Option<Completion>> {
        while let Some(cqe) = self.reaped.pop_front() {
            if let Some(completion) = self.translate(&cqe)? {
                return Ok(Some(completion));
            }
        }
        Ok(None)
    }

    fn translate(&mut self, cqe: &cqueue::Entry) -> io::Result<Option<Completion>> {
        let slot = cqe.user_data() as u32;
        let result = cqe.result();
        let op = (cqe.user_data() >> 32) as u8;
        Ok(Some(match op {
            op if op == Op::Recv as u8 => match cqueue::buffer_select(cqe.flags()) {
                Some(bid) if result > 0 => {
                    let more = cqueue::buffer_more(cqe.flags());
                    let bytes = self.buffers.filled(bid, result as usize, more);
                    Completion::Received { slot, bytes, armed: cqueue::more(cqe.flags()) }
                }
                bid => {
                    if let Some(bid) = bid {
                        let empty = self.buffers.filled(bid, 0, cqueue::buffer_more(cqe.flags()));
                        self.recycle(empty);
                    }
                    Completion::ReceiveEnded { slot, result: outcome(result) }
                }
            },
            op if op == Op::Send as u8 => return self.sent(slot, result),
            op if op == Op::Connect as u8 => Completion::Connected { slot, result: outcome(result) },
            op if op == Op::Close as u8 => Completion::Closed { slot },
            op if op == Op::Wake as u8 => Completion::Woken,
            _ => return Ok(None),
        }))
    }

    fn sent(&mut self, slot: u32, result: i32) -> io::Result<Option<Completion>> {
        let mut flight = self.flights[slot as usize].take().expect("a send's CQE belongs to a flight");
        if result > 0 {
            flight.sent += result as usize;
            if flight.sent < flight.buffer.len() {
                self.flights[slot as usize] = Some(flight);
                self.send_rest(slot)?;
                return Ok(None);
            }
        }
        let mut buffer = flight.buffer;
        buffer.clear();
        Ok(Some(Completion::Sent { slot, buffer, result: outcome(result) }))
    }

    /// The bytes that arrived.
    pub fn bytes(&self, buf: &RecvBuf) -> &[u8] {
        self.buffers.bytes(buf)
    }

    /// Gives a receive buffer back.
    pub fn recycle(&mut self, buf: RecvBuf) {
        self.buffers.recycle(buf);
    }
}

impl Drop for Ring {
    /// Cancels everything. What the kernel does not let go of stays in memory for good.
    fn drop(&mut self) {
        let _ = self.submit();
        let second = types::Timespec::new().sec(1);
        let _ = self.ring.submitter().register_sync_cancel(Some(second), types::CancelBuilder::any());
        for _ in 0..DROP_ROUNDS {
            if self.in_flight == 0 || self.wait(Duration::from_millis(10), None).is_err() {
                break;
            }
        }
        if self.in_flight == 0 {
            // SAFETY: dropped once, here, and not used afterwards; the kernel has no operation that would use it either.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        } else {
            std::mem::forget(std::mem::take(&mut self.flights));
            std::mem::forget(std::mem::take(&mut self.targets));
        }
    }
}

/// Whether the operation has pointers to memory of its ring.
fn uses_memory(token: u64) -> bool {
    [Op::Connect, Op::Recv, Op::Send].iter().any(|op| token >> 32 == *op as u64)
}

fn outcome(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

/// A wait that timed out, was interrupted, or met a full completion queue has done its work.
fn harmless(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e)
            if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Page-aligned zeroed memory, freed on drop.
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    fn new(bytes: usize) -> Pages {
        let layout = Layout::from_size_align(bytes, PAGE).expect("a constant size");
        // SAFETY: the layout's size is not zero: both callers pass positive constants.
        let start = unsafe { alloc_zeroed(layout) };
        Pages { start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// `struct io_uring_buf`: a buffer as it is lent.
#[repr(C)]
struct Entry {
    address: u64,
    len: u32,
    bid: u16,
    /// In the first entry the ring's tail, which the kernel reads at any time.
    tail: AtomicU16,
}

/// The buffer ring that all receives share.
struct Buffers {
    entries: Pages,
    memory: Pages,
    count: u16,
    size: usize,
    tail: u16,
    /// Next free byte of each buffer (incremental use).
    offset: Vec<usize>,
    /// `RecvBuf`s of each buffer that the reader still holds.
    held: Vec<u32>,
    /// The kernel has let go of this buffer.
    released: Vec<bool>,
}

impl Buffers {
    fn register(ring: &IoUring) -> io::Result<Buffers> {
        Self::register_as(ring, BUFFERS_INCREMENTAL, PBUF_RING_INC)
            .or_else(|_| Self::register_as(ring, BUFFERS_PLAIN, 0))
    }

    fn register_as(ring: &IoUring, (count, size): (u16, usize), flags: u16) -> io::Result<Buffers> {
        let entries = Pages::new((usize::from(count) * size_of::<Entry>()).max(PAGE));
        // SAFETY: `entries` is page-aligned and holds `count` entries. The kernel looks at them for a receive only, and `Ring`
        // frees them when none is in flight and none can follow.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.start.as_ptr() as u64,
                count,
                BUFFER_GROUP,
                flags,
            )?;
        }
        let n = usize::from(count);
        let mut buffers = Buffers {
            entries,
            memory: Pages::new(n * size),
            count,
            size,
            tail: 0,
            offset: vec![0; n],
            held: vec![0; n],
            released: vec![false; n],
        };
        for bid in 0..count {
            buffers.give(bid);
        }
        Ok(buffers)
    }

    /// Lends a whole buffer to the kernel.
    fn give(&mut self, bid: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        let start = usize::from(bid) * self.size;
        let base = self.entries.start.as_ptr().cast::<Entry>();
        let address = self.memory.start.as_ptr().wrapping_add(start) as u64;
        // SAFETY: `index` is below `count` and `entries` holds `count` entries. The kernel does not read these three fields
        // before the tail passes them. The fourth is not touched: in the first entry the kernel may read it now, which is why
        // no reference to a whole entry is made.
        unsafe {
            let entry = base.add(index);
            (&raw mut (*entry).address).write(address);
            (&raw mut (*entry).len).write(self.size as u32);
            (&raw mut (*entry).bid).write(bid);
        }
        self.offset[usize::from(bid)] = 0;
        self.released[usize::from(bid)] = false;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry is in `entries` and aligned, and its tail is only used as an atomic: it is stored here, and
        // the kernel reads it with acquire.
        unsafe { (*base).tail.store(self.tail, Ordering::Release) };
    }

    /// Takes note of a CQE: `len` bytes stand after those that came before; with `more` the kernel goes on filling.
    fn filled(&mut self, bid: u16, len: usize, more: bool) -> RecvBuf {
        let b = usize::from(bid);
        let start = self.offset[b];
        self.offset[b] += len;
        self.released[b] = !more;
        self.held[b] += 1;
        assert!(self.offset[b] <= self.size, "the kernel stays inside the buffer");
        RecvBuf { bid, start, len }
    }

    fn bytes(&self, buf: &RecvBuf) -> &[u8] {
        let start = usize::from(buf.bid) * self.size + buf.start;
        // SAFETY: `filled` checked that the stretch lies inside the buffer, whose memory lives as long as `self`. The
        // kernel wrote it before the CQE and writes only behind it until the buffer is given again, which needs
        // every `RecvBuf` of it to be recycled, this one included.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(start), buf.len) }
    }

    fn recycle(&mut self, buf: RecvBuf) {
        let b = usize::from(buf.bid);
        self.held[b] -= 1;
        if self.held[b] == 0 && self.released[b] {
            self.give(buf.bid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn pair() -> (Ring, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut ring = Ring::new(4, vec![address.into()]).unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        ring.adopt(1, socket.into()).unwrap();
        ring.connect(1, 0).unwrap();
        ring.wait(Duration::from_secs(5), None).unwrap();
        let Some(Completion::Connected { slot: 1, result: Ok(()) }) = ring.take().unwrap() else { panic!() };
        (ring, listener.accept().unwrap().0)
    }

    /// Bytes received until `total` have come, checked for content.
    fn collect(ring: &mut Ring, total: usize) -> Vec<u8> {
        let mut got = Vec::new();
        while got.len() < total {
            ring.wait(Duration::from_secs(5), None).unwrap();
            while let Some(completion) = ring.take().unwrap() {
                match completion {
                    Completion::Received { slot, bytes, armed } => {
                        got.extend_from_slice(ring.bytes(&bytes));
                        ring.recycle(bytes);
                        if !armed {
                            ring.receive(slot).unwrap();
                        }
                    }
                    Completion::ReceiveEnded { slot, result } => {
                        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
                        ring.receive(slot).unwrap();
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        got
    }

    #[test]
    fn many_times_the_buffer_space_arrives_whole_and_in_order() {
        let (mut ring, mut peer) = pair();
        ring.receive(1).unwrap();
        let sent: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let copy = sent.clone();
        let writer = std::thread::spawn(move || peer.write_all(&copy).map(|()| peer));
        assert!(collect(&mut ring, sent.len()) == sent);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn a_send_larger_than_the_socket_buffer_arrives_whole() {
        let (mut ring, mut peer) = pair();
        let sent: Vec<u8> = (0..8_000_000u32).map(|i| (i % 251) as u8).collect();
        ring.send(1, sent.clone()).unwrap();
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; 8_000_000];
            peer.read_exact(&mut got).map(|()| got)
        });
        loop {
            ring.wait(Duration::from_secs(5), None).unwrap();
            if let Some(completion) = ring.take().unwrap() {
                let Completion::Sent { slot: 1, buffer, result: Ok(()) } = completion else { panic!() };
                assert!(buffer.is_empty());
                break;
            }
        }
        assert!(reader.join().unwrap().unwrap() == sent);
    }

    #[test]
    fn the_bell_of_another_ring_ends_a_wait() {
        let mut ring = Ring::new(1, Vec::new()).unwrap();
        let bell = ring.bell();
        let ringer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            let mut other = Ring::new(1, Vec::new()).unwrap();
            other.ring_bell(bell).unwrap();
            other.submit().unwrap();
        });
        let begin = std::time::Instant::now();
        ring.wait(Duration::from_secs(5), None).unwrap();
        assert!(matches!(ring.take().unwrap(), Some(Completion::Woken)));
        assert!(begin.elapsed() < Duration::from_secs(4));
        ringer.join().unwrap();
    }

    #[test]
    fn shutdown_ends_the_receive_and_close_frees_the_slot() {
        let (mut ring, _peer) = pair();
        ring.receive(1).unwrap();
        ring.shutdown(1).unwrap();
        ring.wait(Duration::from_secs(5), None).unwrap();
        assert!(matches!(ring.take().unwrap(), Some(Completion::ReceiveEnded { slot: 1, result: Ok(()) })));
        ring.close(1).unwrap();
        ring.wait(Duration::from_secs(5), None).unwrap();
        assert!(matches!(ring.take().unwrap(), Some(Completion::Closed { slot: 1 })));
    }
}
