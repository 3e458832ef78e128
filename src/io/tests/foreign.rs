//! Sockets that a backend must not take: of nobody, of another shard's ring, and those with an operation in flight.

use super::*;

#[test]
#[should_panic(expected = "Imagined(3)")]
fn the_ring_refuses_a_socket_that_somebody_made_up() {
    Rig::<Uring>::new(SMALL).io.receive(&Socket::imagined(3), name(1), ReceiveMode::Once);
}

#[test]
#[should_panic(expected = "Imagined(3)")]
fn epoll_refuses_a_socket_that_somebody_made_up() {
    Rig::<Epoll>::new(SMALL).io.shutdown(&Socket::imagined(3), Shutdown::Both);
}

/// The same place in the table of this ring would be a socket of somebody else.
#[test]
#[should_panic(expected = "Slot(1, 0)")]
fn a_ring_refuses_a_socket_in_the_table_of_another() {
    Rig::<Uring>::new(SMALL).io.close(Socket::in_table(1, 0));
}

#[test]
#[should_panic(expected = "is a socket of the kernel")]
fn a_socket_of_the_kernel_has_no_number() {
    Socket::in_table(0, 3).imagined_number();
}

/// Its descriptor would be that of the next connection while the operation still waits for it.
#[test]
#[should_panic(expected = "closed with an operation in flight")]
fn epoll_does_not_close_what_an_operation_waits_for() {
    let mut rig = Rig::<Epoll>::new(SMALL);
    let (socket, _client) = rig.connect();
    rig.io.receive(&socket, name(1), ReceiveMode::Once);
    rig.io.close(socket);
}
