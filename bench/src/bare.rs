//! The bare loop that the limit is measured against: io_uring by hand, and next to nothing between a receive and a send.
//!
//! It serves one kind of work, pairs at QoS 0 in MQTT 5.0: who subscribed to the topic that a client first publishes to
//! gets every byte that this client sends from then on, uncut. It shares no code with the broker. What the limit
//! (`limit.rs`) needs above this is the price of the broker's kernel boundary and of cutting packets.
//!
//! Invariants
//! - One receive (multishot) and one send per client in flight; bytes that come meanwhile wait in `next`.
//! - A receive buffer is copied from and given back in the turn in which it was filled.
#![allow(unsafe_code)] // Submissions point to memory of clients; the ring of buffers is shared with the kernel.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

/// Receive buffers, and bytes of each: those of the prototypes whose figures are known.
const BUFFERS: u16 = 2048;
const BUFFER_BYTES: usize = 4096;
/// `user_data`: the operation above, the client below.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1 << 32;
const SEND: u64 = 2 << 32;

/// How a wait gathers: until so many completions are there or so many microseconds have passed. None is one completion.
pub type Gather = Option<(usize, u32)>;

struct Client {
    socket: TcpStream,
    /// What the kernel is sending, and what waits for that.
    flying: Vec<u8>,
    next: Vec<u8>,
    in_flight: bool,
    dirty: bool,
    /// Whom its bytes go to, once it has published.
    target: Option<usize>,
}

/// Receive buffers that the kernel fills, all of them offered always. Their memory is never freed.
struct Buffers {
    entries: *mut Entries,
    memory: *mut u8,
    tail: u16,
}

/// Aligned as the kernel asks for: to a page.
#[repr(C, align(4096))]
struct Entries([Entry; BUFFERS as usize]);

/// `struct io_uring_buf`: a buffer as it is offered.
#[repr(C)]
struct Entry {
    address: u64,
    len: u32,
    id: u16,
    /// In the first entry the ring's tail, which the kernel reads at any time.
    tail: AtomicU16,
}

impl Buffers {
    fn new(ring: &IoUring) -> Result<Buffers, String> {
        let free = || Entry { address: 0, len: 0, id: 0, tail: AtomicU16::new(0) };
        let entries = Box::into_raw(Box::new(Entries(std::array::from_fn(|_| free()))));
        let memory = vec![0; usize::from(BUFFERS) * BUFFER_BYTES].leak().as_mut_ptr();
        let mut buffers = Buffers { entries, memory, tail: 0 };
        // SAFETY: page-aligned, with room for all entries, and never freed.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, 0, 0) }
            .map_err(|error| format!("a ring of buffers: {error}"))?;
        (0..BUFFERS).for_each(|id| buffers.give(id));
        buffers.show();
        Ok(buffers)
    }

    fn bytes(&self, id: u16, len: usize) -> &[u8] {
        assert!(id < BUFFERS && len <= BUFFER_BYTES, "{len} bytes in buffer {id}");
        // SAFETY: in bounds, as was just checked, and initialised; the kernel does not write there before `give`, which needs
        // `self` mutably.
        unsafe { std::slice::from_raw_parts(self.memory.add(usize::from(id) * BUFFER_BYTES), len) }
    }

    fn give(&mut self, id: u16) {
        let memory = self.memory.wrapping_add(usize::from(id) * BUFFER_BYTES);
        // SAFETY: within the entries. The kernel does not read these three fields before `show`; the tail, which it may read in
        // the first entry now, is not touched, and no reference to a whole entry is made.
        unsafe {
            let entry = self.entries.cast::<Entry>().add(usize::from(self.tail % BUFFERS));
            (&raw mut (*entry).address).write(memory as u64);
            (&raw mut (*entry).len).write(BUFFER_BYTES as u32);
            (&raw mut (*entry).id).write(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn show(&mut self) {
        // SAFETY: the first of the entries, which are never freed; its tail is stored here only, and the kernel reads it with
        // acquire.
        unsafe { (*self.entries.cast::<Entry>()).tail.store(self.tail, Ordering::Release) };
    }
}

struct Bare {
    ring: IoUring,
    buffers: Buffers,
    clients: Vec<Client>,
    subscribers: HashMap<Vec<u8>, usize>,
    dirty: Vec<usize>,
}

/// Serves until the process ends.
///
/// # Errors
/// What the kernel does not have or does not allow.
pub fn run(listener: &TcpListener, gather: Gather) -> Result<(), String> {
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(16 * 1024)
        .build(4096)
        .map_err(|error| format!("io_uring: {error}"))?;
    let buffers = Buffers::new(&ring)?;
    // Leaked: after an error the kernel may still fill buffers and send from clients' memory.
    let bare = Box::leak(Box::new(Bare {
        ring,
        buffers,
        clients: Vec::new(),
        subscribers: HashMap::new(),
        dirty: Vec::new(),
    }));
    bare.push(opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build().user_data(ACCEPT));
    let (mut cqes, mut last) = (Vec::new(), 0);
    loop {
        // What came alone is answered alone: gathering would only delay it.
        bare.wait(gather.filter(|_| last > 1))?;
        cqes.extend(bare.ring.completion().map(|cqe| (cqe.user_data(), cqe.result(), cqe.flags())));
        last = cqes.len();
        for (user_data, result, flags) in cqes.drain(..) {
            bare.completed(user_data, result, flags)?;
        }
        bare.send();
        bare.buffers.show();
    }
}

impl Bare {
    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: an entry points to the `flying` of a client at most, whose bytes are not touched before its send has
        // completed (`in_flight`) and never freed.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            let _ = self.ring.submit();
        }
    }

    fn wait(&self, gather: Gather) -> Result<(), String> {
        let waited = match gather {
            None => self.ring.submit_and_wait(1),
            Some((cqes, micros)) => {
                let second = Timespec::new().sec(1);
                let args = SubmitArgs::new().timespec(&second).min_wait_usec(micros);
                self.ring.submitter().submit_with_args(cqes, &args)
            }
        };
        match waited {
            Err(error) if error.kind() != ErrorKind::Interrupted && error.raw_os_error() != Some(ETIME) => {
                Err(format!("a wait: {error}"))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn completed(&mut self, user_data: u64, result: i32, flags: u32) -> Result<(), String> {
        let at = user_data as u32 as usize;
        match user_data & !u64::from(u32::MAX) {
            RECEIVE if result > 0 => {
                let id = cqueue::buffer_select(flags).ok_or("bytes without a buffer")?;
                self.received(at, id, result as usize);
                self.buffers.give(id);
                if !cqueue::more(flags) {
                    self.receive(at);
                }
            }
            RECEIVE if result == -ENOBUFS => self.receive(at),
            // The end of a client: its descriptor stays until the process ends.
            RECEIVE => {}
            // The client is gone: nothing more is sent to it.
            SEND if result < 0 => {}
            SEND if result != self.clients[at].flying.len() as i32 => {
                return Err(format!("a send of {} bytes: {result}", self.clients[at].flying.len()));
            }
            SEND => {
                self.clients[at].in_flight = false;
                if !self.clients[at].next.is_empty() {
                    self.touch(at);
                }
            }
            _ if result >= 0 => {
                // SAFETY: a successful accept hands over a new descriptor that nobody else knows.
                let socket = unsafe { TcpStream::from_raw_fd(result) };
                socket.set_nodelay(true).map_err(|error| error.to_string())?;
                let (flying, next) = (Vec::new(), Vec::new());
                self.clients.push(Client {
                    socket,
                    flying,
                    next,
                    in_flight: false,
                    dirty: false,
                    target: None,
                });
                self.receive(self.clients.len() - 1);
            }
            _ => return Err(format!("accept: error {}", -result)),
        }
        Ok(())
    }

    fn receive(&mut self, at: usize) {
        let receive = opcode::RecvMulti::new(Fd(self.clients[at].socket.as_raw_fd()), 0).build();
        self.push(receive.user_data(RECEIVE | at as u64));
    }

    fn received(&mut self, at: usize, id: u16, len: usize) {
        let bytes = self.buffers.bytes(id, len);
        let target = match self.clients[at].target {
            Some(target) => target,
            None => match answer(bytes, &mut self.clients[at].next, &mut self.subscribers, at) {
                Some(target) => *self.clients[at].target.insert(target),
                None => return self.touch(at),
            },
        };
        self.clients[target].next.extend_from_slice(bytes);
        self.touch(target);
    }

    fn touch(&mut self, at: usize) {
        if !std::mem::replace(&mut self.clients[at].dirty, true) {
            self.dirty.push(at);
        }
    }

    fn send(&mut self) {
        for at in std::mem::take(&mut self.dirty) {
            let client = &mut self.clients[at];
            client.dirty = false;
            if client.in_flight || client.next.is_empty() {
                continue;
            }
            client.flying.clear();
            std::mem::swap(&mut client.flying, &mut client.next);
            client.in_flight = true;
            let (bytes, len) = (client.flying.as_ptr(), client.flying.len() as u32);
            let send = opcode::Send::new(Fd(client.socket.as_raw_fd()), bytes, len)
                .flags(MSG_WAITALL | MSG_NOSIGNAL)
                .build();
            self.push(send.user_data(SEND | at as u64));
        }
    }
}

/// Answers CONNECT and SUBSCRIBE, each of which comes alone, into `out`; for a PUBLISH it tells who gets it.
fn answer(
    bytes: &[u8],
    out: &mut Vec<u8>,
    subscribers: &mut HashMap<Vec<u8>, usize>,
    at: usize,
) -> Option<usize> {
    let body_at = 2 + bytes[1..].iter().take_while(|byte| **byte >= 0x80).count();
    let text = |from: usize| {
        let len = usize::from(u16::from_be_bytes([bytes[from], bytes[from + 1]]));
        bytes[from + 2..from + 2 + len].to_vec()
    };
    match bytes[0] >> 4 {
        1 => out.extend([0x20, 3, 0, 0, 0]),
        3 => return subscribers.get(&text(body_at)).copied(),
        8 => {
            subscribers.insert(text(body_at + 3), at);
            out.extend([0x90, 4, bytes[body_at], bytes[body_at + 1], 0, 0]);
        }
        _ => {}
    }
    None
}

const MSG_WAITALL: i32 = 0x100;
const MSG_NOSIGNAL: i32 = 0x4000;
/// The time of a wait is up; no receive buffer is free.
const ETIME: i32 = 62;
const ENOBUFS: i32 = 105;
