//! Listening sockets that come and go while a backend runs.

use super::*;

pub(super) fn a_listening_socket_is_added_and_closed_while_others_go_on<B: Backend>() {
    const MORE: ListenerId = ListenerId(3);
    let mut rig = Rig::<B>::new(SMALL);
    rig.accept();
    let mut clients = Vec::new();
    // Its number is used again.
    for round in 0..3 {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        rig.io.listen(MORE, socket);
        let early = TcpStream::connect(address).unwrap();
        rig.poll(10);
        assert!(rig.waiting.is_empty(), "it does not accept yet: {:?}", rig.waiting);
        rig.io.accept(MORE);
        for (listener, at) in [(MORE, None), (MORE, Some(address)), (FIRST, Some(rig.address))] {
            clients.extend(at.map(|at| TcpStream::connect(at).unwrap()));
            match rig.next() {
                Completion::Accepted { listener: by, socket, .. } => {
                    assert_eq!(by, listener, "round {round}");
                    rig.io.close(socket);
                }
                other => panic!("{other:?}"),
            }
        }
        rig.io.accept_cancel(MORE);
        match rig.next() {
            Completion::AcceptEnded { listener: MORE, errno: 0 } => {}
            other => panic!("{other:?}"),
        }
        rig.io.unlisten(MORE);
        rig.poll(10);
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        drop(early);
    }
}
