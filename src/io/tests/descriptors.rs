//! How many descriptors a backend has, and that none stays behind.
#![allow(unsafe_code)] // Descriptors change hands as numbers; a table of descriptors is split from the process's.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use super::*;
use crate::io::Files;
use crate::io::uring::Peers;

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/thread-self/fd").unwrap().count()
}

/// Runs `work` with a table of descriptors of its own, so that tests that run beside it are not counted.
fn with_own_descriptors(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: this thread has opened nothing yet; what it closes are its own copies of others' descriptors.
        unsafe {
            assert_eq!(libc::unshare(libc::CLONE_FILES), 0);
            assert_eq!(libc::close_range(3, u32::MAX, 0), 0);
        }
        work();
    });
    thread.join().unwrap();
}

pub(super) fn no_descriptor_is_left_behind<B: Backend>() {
    with_own_descriptors(|| {
        let before = open_descriptors();
        for _ in 0..3 {
            let mut rig = Rig::<B>::new(SMALL);
            let address = rig.address;
            std::thread::scope(|scope| {
                scope.spawn(move || (0..40).for_each(|seed| echo_client(address, seed, 3, 500)));
                serve(&mut rig, 40);
            });
            // One that sends, one that receives, and one that nobody has taken yet, when the ring goes.
            rig.io.accept_cancel(FIRST);
            assert!(matches!(rig.next(), Completion::AcceptEnded { .. }));
            let (sending, client) = rig.connect();
            let (receiving, _other) = rig.connect();
            rig.io.send(&sending, name(1), batch(&vec![1; 32 << 20]));
            rig.io.receive(&receiving, name(2), ReceiveMode::Many);
            let scratch = files::Scratch::new("descriptors");
            let file = scratch.files().create("a", 1 << 20).unwrap();
            rig.io.write_file(&file, 1, 0, Aligned::from(&[1; 1 << 20][..]), Sync::Data);
            rig.io.read_file(&file, 2, 1 << 20, Aligned::new(), 1 << 20);
            drop(file);
            let _unseen = TcpStream::connect(rig.address).unwrap();
            rig.io.submit_and_wait(100);
            drop(rig);
            for socket in [sending, receiving] {
                // The ring that had operations on them is gone.
                drop(socket.into_descriptor());
            }
            drop(client);
        }
        assert_eq!(open_descriptors(), before);
    });
}

/// A table that is full leaves sockets as they are, and a place
/// that was emptied is used again.
#[test]
fn settled_sockets_are_no_descriptors_of_the_process() {
    with_own_descriptors(|| {
        let sizes = Sizes { direct: 3, ..SMALL };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let io = Uring::make(sizes, 0, Arc::new(Peers::new(1)), listener);
        let mut rig = Rig { io, waiting: Default::default(), address, accepting: false };
        let mut pairs: Vec<(Socket, TcpStream)> = (0..5).map(|_| rig.connect()).collect();
        let before = open_descriptors();
        pairs.iter_mut().for_each(|(socket, _)| rig.io.settle(socket));
        assert_eq!(open_descriptors(), before - 3, "two did not fit");
        // Again changes nothing.
        pairs.iter_mut().for_each(|(socket, _)| rig.io.settle(socket));
        assert_eq!(open_descriptors(), before - 3);
        let (first, mut client) = pairs.remove(0);
        rig.io.shutdown(&first, Shutdown::Write);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the peer sees the end");
        assert_eq!(open_descriptors(), before - 3, "the descriptor for the shutdown is gone");
        rig.io.close(first);
        let (last, _) = pairs.last_mut().unwrap();
        rig.io.settle(last);
        assert_eq!(open_descriptors(), before - 4, "its place is taken again");
        for (index, (socket, client)) in pairs.iter_mut().enumerate() {
            rig.io.receive(socket, name(index as u32), ReceiveMode::Once);
            client.write_all(&[index as u8]).unwrap();
            match rig.next() {
                Completion::Received { token, buffer, .. } => {
                    assert_eq!((token, rig.io.bytes(buffer)), (name(index as u32), &[index as u8][..]));
                    rig.io.replenish(buffer);
                }
                other => panic!("{other:?}"),
            }
        }
        pairs.into_iter().for_each(|(socket, _)| rig.io.close(socket));
    });
}
