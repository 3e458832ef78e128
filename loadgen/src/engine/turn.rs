//! One turn of a worker: send what is staged, wait, act on what the kernel has finished.
//!
//! Nothing sends from inside the handling of a packet: bytes are staged in the connection and leave together.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::conn::{Phase, feed};
use super::control::Stage;
use super::dispatch::{Dispatch, Links};
use super::plan::{self, Role};
use super::slow;
use super::worker::{Event, Worker};
use crate::failure::{Failure, NO_CONNACK};
use crate::ring::{Completion, RecvBuf};
use crate::spec::Pattern;
use crate::sys;
use crate::transport::Layers;
use crate::wire::encode;

/// Receive buffer of a slow subscriber's socket: the broker soon sees that it does not read.
const SLOW_SOCKET_BYTES: usize = 4096;

/// Between two looks of a thread at how late it is by itself; no divisor of the usual periods.
const PROBE_NS: u64 = 2_003_000;

pub(super) fn machine(error: io::Error) -> Failure {
    Failure::Machine { what: format!("io_uring: {error}") }
}

impl Worker<'_> {
    /// Sends what is staged, waits until something happens but not past `until`, and acts on it.
    pub(super) fn turn(&mut self, until: u64) -> Result<(), Failure> {
        self.flush()?;
        self.wait(until).map_err(machine)?;
        let mut handled = 0;
        while let Some(completion) = self.ring.take().map_err(machine)? {
            self.handle(completion).map_err(machine)?;
            handled += 1;
        }
        self.busy_turn = handled > 1;
        let now = self.now();
        if self.control.take_mail(self.index) {
            self.traffic.collect_credits();
        }
        self.serve_ready(now);
        self.return_credits().map_err(machine)?;
        self.keep_alive(now);
        self.read_slowly(now).map_err(machine)?;
        while let Some(interval) = self.traffic.meter.second_over(now) {
            let _ = self.events.send(Event::Interval(interval));
        }
        Ok(())
    }

    /// Puts a connection with bytes to send into the list, once.
    #[inline]
    pub(super) fn stage(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if !conn.dirty && !conn.send_in_flight && conn.has_output() {
            conn.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Hands staged bytes to the ring, one send for each connection.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let now = self.control.clock.now();
        while let Some(slot) = self.dirty.pop() {
            let conn = &mut self.conns[slot as usize];
            conn.dirty = false;
            if conn.send_in_flight || !conn.has_output() || !conn.has_socket {
                continue;
            }
            let bytes = match &mut conn.layers {
                None => conn.take_out(),
                Some(layers) => {
                    let mut raw = std::mem::take(&mut conn.raw);
                    if layers.is_ready()
                        && let Err(error) = layers.send(&conn.out, &mut raw)
                    {
                        let failure = Failure::Layer { who: conn.role.name(), why: error.0 };
                        self.fail(slot, failure).map_err(machine)?;
                        continue;
                    }
                    conn.out.clear();
                    raw
                }
            };
            conn.send_in_flight = true;
            conn.last_sent_ns = now;
            self.ring.send(slot, bytes).map_err(machine)?;
        }
        Ok(())
    }

    fn wait(&mut self, until: u64) -> io::Result<()> {
        let now = self.now();
        if until <= now || !self.control.may_sleep(self.index) {
            self.control.awake(self.index);
            return self.ring.submit();
        }
        if !self.spinning {
            // A lone message must not wait for company: only a busy turn makes the next one gather.
            let gather = self.spec.gather.filter(|_| self.busy_turn);
            if self.probe_ns <= now {
                self.probe_ns = now + PROBE_NS;
            }
            let until = until.min(self.probe_ns);
            let result = self.ring.wait(Duration::from_nanos(until - now), gather);
            self.control.awake(self.index);
            if !self.ring.has_completions() {
                // Nobody woke this thread but its own time-out: whatever came meanwhile would have waited as long.
                let woke = self.now();
                if let Some(late) = woke.checked_sub(until) {
                    self.traffic.meter.woke(woke, late);
                }
            }
            return result;
        }
        self.control.awake(self.index);
        self.ring.submit()?;
        let idle_since = self.now();
        while !self.ring.has_completions() {
            let later = self.now();
            if later >= self.probe_ns {
                if self.probe_ns > idle_since {
                    self.traffic.meter.woke(later, later - self.probe_ns);
                }
                self.probe_ns = later + PROBE_NS;
            }
            if later >= until {
                break;
            }
            std::hint::spin_loop();
            self.ring.submit()?;
        }
        self.spun_ns += self.now() - idle_since;
        Ok(())
    }

    fn handle(&mut self, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Received { slot, bytes, armed } => {
                self.conns[slot as usize].recv_armed = armed;
                let result = self.read(slot, &bytes);
                self.ring.recycle(bytes);
                if let Err(failure) = result {
                    self.fail(slot, failure)?;
                }
                self.stage(slot);
                self.receive_more(slot)
            }
            Completion::Sent { slot, buffer, result } => {
                self.conns[slot as usize].send_in_flight = false;
                self.conns[slot as usize].give_back(buffer);
                match result {
                    Ok(()) => self.sent(slot),
                    Err(error) => self.broken(slot, &error)?,
                }
                self.close_if_quiet(slot)
            }
            Completion::Connected { slot, result } => {
                self.conns[slot as usize].connecting = false;
                match result {
                    Ok(()) if self.conns[slot as usize].phase == Phase::Connecting => self.greet(slot)?,
                    Ok(()) => {}
                    Err(error) => self.fail(slot, Failure::of_connect(&error, &self.spec.target.name))?,
                }
                self.close_if_quiet(slot)
            }
            Completion::ReceiveEnded { slot, result } => {
                self.conns[slot as usize].recv_armed = false;
                match result {
                    Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return self.receive_more(slot),
                    Err(e) => self.broken(slot, &e)?,
                    Ok(()) => {
                        let conn = &self.conns[slot as usize];
                        let (who, during) = (conn.role.name(), conn.phase.during());
                        self.fail(slot, Failure::Closed { who, code: None, during })?;
                    }
                }
                self.close_if_quiet(slot)
            }
            Completion::Closed { slot } => {
                let conn = &mut self.conns[slot as usize];
                (conn.close_in_flight, conn.has_socket) = (false, false);
                conn.reset();
                if let Some(storm) = self.storm.as_mut().filter(|storm| storm.away > 0)
                    && conn.cut
                {
                    conn.cut = false;
                    storm.returning.push(slot);
                }
                Ok(())
            }
            Completion::Woken => Ok(()),
        }
    }

    /// Takes received bytes apart and acts on every packet in them.
    fn read(&mut self, slot: u32, bytes: &RecvBuf) -> Result<(), Failure> {
        let now = self.control.clock.now();
        let conn = &mut self.conns[slot as usize];
        let role = conn.role;
        let mut dispatch = Dispatch {
            spec: self.spec,
            traffic: &mut self.traffic,
            links: &mut self.links,
            now,
            forgetting: self.forgetting,
        };
        let mut partial = std::mem::take(&mut conn.partial);
        let mut result = Ok(());
        let received = self.ring.bytes(bytes);
        if conn.phase == Phase::AwaitingConnack
            && conn.layers.is_none()
            && partial.is_empty()
            && received[0] != 0x20
        {
            // Its length, if it were one, could keep us waiting for more.
            return Err(Failure::Malformed { who: role.name(), what: NO_CONNACK });
        }
        if let Some(mut layers) = conn.layers.take() {
            self.plain.clear();
            result = layers
                .receive(received, &mut self.plain, &mut conn.raw)
                .map_err(|error| Failure::Layer { who: role.name(), why: error.0 });
            if result.is_ok() && conn.phase == Phase::Handshake && layers.is_ready() {
                dispatch.say_hello(conn);
            }
            conn.layers = Some(layers);
            if result.is_ok() {
                result =
                    feed(&mut partial, &self.plain, |first, body| dispatch.handle_packet(conn, first, body));
            }
        } else {
            result = result.and_then(|()| {
                feed(&mut partial, received, |first, body| dispatch.handle_packet(conn, first, body))
            });
        }
        self.conns[slot as usize].partial = partial;
        result.map_err(|failure| failure.or_of(&role))
    }

    /// The kernel has taken what was staged.
    fn sent(&mut self, slot: u32) {
        let conn = &self.conns[slot as usize];
        if let Role::Publisher(_) = conn.role {
            let local = conn.local;
            if self.spec.pattern == Pattern::Swallow && !conn.has_output() {
                let taken = self.traffic.outstanding(local);
                self.traffic.credit_local(local, taken);
            }
            self.traffic.unblock(local, self.control.clock.now());
        }
        self.stage(slot);
    }

    fn greet(&mut self, slot: u32) -> io::Result<()> {
        let conn = &mut self.conns[slot as usize];
        let seed = self.spec.seed ^ u64::from(slot) << 20 ^ u64::from(self.index);
        match Layers::new(&self.spec.transport, &self.spec.target.name, seed) {
            Ok(None) => Links::greet(self.spec, conn, self.forgetting),
            Ok(Some(mut layers)) => {
                conn.phase = Phase::Handshake;
                if let Err(error) = layers.start(&mut conn.raw) {
                    let failure = Failure::Layer { who: conn.role.name(), why: error.0 };
                    return self.fail(slot, failure);
                }
                conn.layers = Some(layers);
            }
            Err(error) => {
                let failure = Failure::Layer { who: conn.role.name(), why: error.0 };
                return self.fail(slot, failure);
            }
        }
        self.stage(slot);
        self.receive_more(slot)
    }

    /// Arms the next receive where none is armed.
    pub(super) fn receive_more(&mut self, slot: u32) -> io::Result<()> {
        let conn = &mut self.conns[slot as usize];
        if conn.recv_armed || conn.phase == Phase::Closed || !conn.has_socket {
            return self.close_if_quiet(slot);
        }
        if conn.slow && conn.phase == Phase::Up {
            return Ok(());
        }
        conn.recv_armed = true;
        if conn.slow { self.ring.receive_once(slot, slow::CHUNK) } else { self.ring.receive(slot) }
    }

    fn read_slowly(&mut self, now: u64) -> io::Result<()> {
        if self.slow.is_empty() {
            return Ok(());
        }
        for slot in self.slow.due(now) {
            let conn = &mut self.conns[slot as usize];
            if conn.slow && conn.phase == Phase::Up && !conn.recv_armed {
                conn.recv_armed = true;
                self.ring.receive_once(slot, slow::CHUNK)?;
            }
        }
        Ok(())
    }

    fn broken(&mut self, slot: u32, error: &io::Error) -> io::Result<()> {
        let conn = &self.conns[slot as usize];
        let (who, during) = (conn.role.name(), conn.phase.during());
        let failure = match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE) => Failure::Closed { who, code: None, during },
            _ => Failure::Broken { who, why: error.to_string() },
        };
        self.fail(slot, failure)
    }

    /// A connection is of no more use, and that was not our doing (unless we are leaving anyway).
    pub(super) fn fail(&mut self, slot: u32, failure: Failure) -> io::Result<()> {
        let phase = self.conns[slot as usize].phase;
        match phase {
            Phase::Leaving | Phase::Closed => {}
            _ if self.forgetting => {}
            Phase::Up if self.control.stage() == Stage::Connect => {
                self.links.up -= 1;
                self.links.failed += 1;
                self.links.failures.push(failure);
            }
            Phase::Up => {
                self.links.up -= 1;
                let _ = self.events.send(Event::Trouble(failure));
            }
            _ => {
                if phase != Phase::AwaitingSuback {
                    self.links.answered += 1;
                }
                self.links.failed += 1;
                self.links.returned += 1;
                self.links.failures.push(failure);
            }
        }
        self.shut(slot)
    }

    /// Ends a connection without a word; its socket is closed once nothing of it is in flight.
    pub(super) fn shut(&mut self, slot: u32) -> io::Result<()> {
        let conn = &mut self.conns[slot as usize];
        if conn.phase == Phase::Closed {
            return Ok(());
        }
        conn.phase = Phase::Closed;
        conn.out.clear();
        conn.raw.clear();
        if conn.connecting {
            self.ring.cancel_connect(slot)?;
        } else if conn.has_socket && (conn.recv_armed || conn.send_in_flight) {
            self.ring.shutdown(slot)?;
        }
        self.close_if_quiet(slot)
    }

    fn close_if_quiet(&mut self, slot: u32) -> io::Result<()> {
        let conn = &mut self.conns[slot as usize];
        if conn.phase == Phase::Closed && conn.has_socket && conn.is_quiet() {
            conn.close_in_flight = true;
            self.ring.close(slot)?;
        }
        Ok(())
    }

    /// Starts to connect a client whose connect was due at `due`.
    pub(super) fn open(&mut self, slot: u32, due: u64) -> Result<(), Failure> {
        let target = slot as usize % self.spec.target.addresses.len();
        let now = self.now();
        let conn = &mut self.conns[slot as usize];
        (conn.due_ns, conn.began_ns) = (due, now);
        conn.phase = Phase::Connecting;
        let slow = conn.slow;
        let opened = || -> io::Result<Socket> {
            let domain = Domain::for_address(self.spec.target.addresses[target]);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_tcp_nodelay(true)?;
            if slow {
                socket.set_recv_buffer_size(SLOW_SOCKET_BYTES)?;
            }
            if !self.spec.sources.is_empty() {
                let number = slot as usize * self.spec.workers as usize + self.index as usize;
                let source = self.spec.sources[number % self.spec.sources.len()];
                sys::bind_address_no_port(&socket)?;
                socket.bind(&std::net::SocketAddr::new(source, 0).into())?;
            }
            Ok(socket)
        };
        let socket = opened().map_err(|e| Failure::of_connect(&e, &self.spec.target.name))?;
        self.ring.adopt(slot, socket.into()).map_err(machine)?;
        let conn = &mut self.conns[slot as usize];
        (conn.has_socket, conn.connecting) = (true, true);
        self.ring.connect(slot, target).map_err(machine)
    }

    fn serve_ready(&mut self, now: u64) {
        let ready = self.traffic.take_ready();
        for &local in &ready {
            let slot = self.traffic.publishers[local as usize].conn;
            self.traffic.serve(local, &mut self.conns[slot as usize], now);
            self.stage(slot);
        }
        self.traffic.give_back_ready(ready);
    }

    fn return_credits(&mut self) -> io::Result<()> {
        for (publisher, copies) in self.traffic.take_remote() {
            self.control.credits[publisher as usize].fetch_add(copies, Ordering::AcqRel);
            let (home, _) = plan::publisher_home(self.spec, publisher);
            if let Some(bell) = self.control.leave_mail(home) {
                self.ring.ring_bell(bell)?;
            }
        }
        Ok(())
    }

    /// Looks at a part of the connections, so that each is seen well before its Keep Alive is over.
    fn keep_alive(&mut self, now: u64) {
        if self.spec.keep_alive_s == 0 || now < self.next_sweep_ns || self.conns.is_empty() {
            return;
        }
        self.next_sweep_ns = now + 50_000_000;
        let idle_ns = u64::from(self.spec.keep_alive_s) * 500_000_000;
        // All connections within a quarter of the Keep Alive.
        let count = self.conns.len() * 200 / (usize::from(self.spec.keep_alive_s) * 1000) + 1;
        for _ in 0..count.min(self.conns.len()) {
            self.swept = (self.swept + 1) % self.conns.len();
            let conn = &mut self.conns[self.swept];
            if conn.phase == Phase::Up
                && now.saturating_sub(conn.last_sent_ns) > idle_ns
                && !conn.send_in_flight
            {
                encode::pingreq(&mut conn.out);
                self.stage(self.swept as u32);
            }
        }
    }
}
