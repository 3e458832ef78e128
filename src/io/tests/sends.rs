//! Sends: in pieces, blocked, ended by a shutdown, and those that nobody waits for.

use super::*;

pub(super) fn spliced_payloads_arrive_in_order_even_beyond_the_kernels_count_of_pieces<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (socket, mut client) = rig.connect();
    let mut dice = Dice(5);
    let mut outbox = Outbox::default();
    let mut expected = Vec::new();
    for index in 0..1200 {
        let len = if index == 600 { 400_000 } else { Outbox::SPLICE_MIN + (dice.roll() % 3000) as usize };
        let message = message(&dice.bytes(len));
        let head = dice.bytes(5);
        outbox.bytes_mut().extend_from_slice(&head);
        outbox.push_payload(&message);
        expected.extend_from_slice(&head);
        expected.extend_from_slice(message.payload());
    }
    let len = expected.len();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; len];
        client.read_exact(&mut got).unwrap();
        got
    });
    let mut batch = outbox.take(Vec::new());
    let mut sends = 0;
    while batch.remaining() > 0 {
        rig.io.send(&socket, name(1), batch);
        match rig.next() {
            Completion::Sent { token, batch: back, result } => {
                assert_eq!(token, name(1));
                batch = back;
                batch.advance(result.unwrap());
            }
            other => panic!("{other:?}"),
        }
        sends += 1;
    }
    assert_eq!(sends, 3, "2,400 pieces, 1,024 at a time");
    assert!(reader.join().unwrap() == expected);
    rig.io.close(socket);
}

pub(super) fn a_shutdown_ends_a_blocked_send_and_the_receive<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (socket, client) = rig.connect();
    rig.io.receive(&socket, name(1), ReceiveMode::Many);
    rig.io.send(&socket, name(1), batch(&vec![1; 32 << 20]));
    rig.poll(100);
    assert!(rig.waiting.is_empty(), "the client does not read, so nothing ends: {:?}", rig.waiting);
    rig.io.shutdown(&socket, Shutdown::Both);
    let (mut sent, mut ended) = (false, false);
    while !(sent && ended) {
        match rig.next() {
            Completion::Sent { batch, result, .. } => {
                assert!(result.map_or(true, |count| count < batch.remaining()), "{result:?}");
                sent = true;
            }
            Completion::ReceiveEnded { end: ReceiveEnd::Eof, .. } => ended = true,
            other => panic!("{other:?}"),
        }
    }
    rig.io.send(&socket, name(1), batch(b"more"));
    assert!(matches!(rig.next(), Completion::Sent { result: Err(libc::EPIPE), .. }));
    rig.io.close(socket);
    drop(client);
}

pub(super) fn a_send_in_parts_is_over_when_the_socket_took_some<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (socket, mut client) = rig.connect();
    let mut outbox = Outbox::default();
    let message = message(&Dice(6).bytes(32 << 20));
    outbox.push_payload(&message);
    let mut batch = outbox.take(Vec::new());
    let mut sent = 0;
    // The client reads only what is over, so none is that waits for everything.
    while batch.remaining() > 0 {
        rig.io.send_in_parts(&socket, name(1), batch);
        let Completion::Sent { batch: back, result: Ok(count), .. } = rig.next() else { panic!("a send") };
        assert!((1..=back.remaining()).contains(&count));
        batch = back;
        batch.advance(count);
        let mut got = vec![0; count];
        client.read_exact(&mut got).unwrap();
        assert!(got == message.payload()[sent..sent + count]);
        sent += count;
    }
    assert_eq!(sent, 32 << 20);
    rig.io.close(socket);
}

pub(super) fn what_was_not_taken_on_either_side_is_counted<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (socket, mut client) = rig.connect();
    assert_eq!(rig.io.unsent(&socket), Some(0));
    let mut outbox = Outbox::default();
    outbox.push_payload(&message(&Dice(7).bytes(64 << 20)));
    rig.io.send_in_parts(&socket, name(1), outbox.take(Vec::new()));
    let Completion::Sent { result: Ok(sent), .. } = rig.next() else { panic!("a send") };
    let sent = sent as u32;
    assert_eq!(rig.io.unread(&socket), Some(0));
    client.write_all(b"five!").unwrap();
    let end = Instant::now() + PATIENCE;
    while rig.io.unread(&socket) != Some(5) {
        assert!(Instant::now() < end, "five bytes have come");
    }
    let before = rig.io.unsent(&socket).unwrap();
    assert!(0 < before && before <= sent, "{before} of {sent}");
    // Long before there is room for another part it is seen that the client reads.
    let (mut taken, mut after) = (0, before);
    while after >= before {
        assert!(taken < sent as usize / 2, "{taken} bytes were read, {after} of {before} wait");
        client.read_exact(&mut [0; 32 << 10]).unwrap();
        taken += 32 << 10;
        let looks = (0..50).map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            rig.io.unsent(&socket).unwrap()
        });
        after = looks.min().unwrap();
    }
    let mut rest = vec![0; sent as usize - taken];
    client.read_exact(&mut rest).unwrap();
    let end = Instant::now() + PATIENCE;
    while rig.io.unsent(&socket) != Some(0) {
        assert!(Instant::now() < end, "everything was read");
        std::thread::sleep(Duration::from_millis(1));
    }
    rig.io.close(socket);
}

pub(super) fn a_send_that_nobody_waits_for_completes_and_holds_nothing_up<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (one, mut client) = rig.connect();
    let (other, full) = rig.connect();
    let start = Instant::now();
    // The completions are there at the end of a wait, whatever ended it; one with a message ends at once.
    for round in 0..3u8 {
        rig.io.receive(&one, name(1), ReceiveMode::Once);
        rig.io.send_unawaited(&one, name(1), batch(&[round; 10]));
        rig.poll(0);
        client.write_all(&[round]).unwrap();
        let (mut sent, mut got) = (false, false);
        while !(sent && got) {
            match rig.waiting.pop_front() {
                Some(Completion::Sent { result, .. }) => sent = result == Ok(10),
                Some(Completion::Received { buffer, .. }) => {
                    assert_eq!(rig.io.bytes(buffer), [round]);
                    rig.io.replenish(buffer);
                    got = true;
                }
                None => rig.poll(20_000),
                other => panic!("{other:?}"),
            }
        }
    }
    // One that finds no room goes on by itself, and does not keep others waiting.
    let mut bytes = 0;
    let blocked = loop {
        rig.io.send_unawaited(&other, name(2), batch(&[7; 60_000]));
        rig.poll(0);
        rig.poll(20);
        match rig.waiting.pop_front() {
            Some(Completion::Sent { result, batch, .. }) => {
                bytes += result.unwrap();
                if result.unwrap() < batch.remaining() {
                    continue;
                }
            }
            None => break 60_000,
            other => panic!("{other:?}"),
        }
    };
    rig.io.receive(&one, name(1), ReceiveMode::Once);
    rig.io.send_unawaited(&one, name(1), batch(b"more"));
    client.write_all(b"heard").unwrap();
    let (mut sent, mut got) = (false, false);
    while !(sent && got) {
        match rig.next() {
            Completion::Sent { token, result, .. } => {
                assert_eq!((token, result), (name(1), Ok(4)));
                sent = true;
            }
            Completion::Received { buffer, .. } => {
                rig.io.replenish(buffer);
                got = true;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(start.elapsed() < Duration::from_secs(15), "something was waited for in vain");
    let reader = std::thread::spawn(move || {
        let mut left = vec![0; bytes + blocked];
        (&full).read_exact(&mut left).unwrap();
        left.iter().all(|byte| *byte == 7)
    });
    match rig.next() {
        Completion::Sent { token, result, batch } => {
            assert_eq!((token, result), (name(2), Ok(batch.remaining())));
        }
        other => panic!("{other:?}"),
    }
    assert!(reader.join().unwrap());
    rig.io.close(one);
    rig.io.close(other);
}

#[test]
fn a_quiet_send_wakes_nobody_and_any_other_does() {
    let mut rig = Rig::<Uring>::new(SMALL);
    let (socket, mut client) = rig.connect();
    for quiet in [true, false, true] {
        let start = Instant::now();
        let calls = rig.io.system_calls();
        match quiet {
            true => rig.io.send_unawaited(&socket, name(1), batch(b"quiet")),
            false => rig.io.send(&socket, name(1), batch(b"quiet")),
        }
        rig.poll(200);
        assert_eq!(start.elapsed() >= Duration::from_millis(190), quiet, "{:?}", start.elapsed());
        assert_eq!(rig.io.system_calls() - calls, 1);
        assert!(matches!(rig.waiting.pop_front(), Some(Completion::Sent { result: Ok(5), .. })));
        let mut got = [0; 5];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"quiet");
    }
    // One that was not over when completions were taken may have somebody who waits for it by now.
    let start = Instant::now();
    rig.io.send_unawaited(&socket, name(1), batch(b"quiet"));
    let mut none = Vec::new();
    rig.io.completions(&mut none);
    assert!(none.is_empty(), "it was not even submitted: {none:?}");
    rig.poll(5000);
    assert!(matches!(rig.waiting.pop_front(), Some(Completion::Sent { result: Ok(5), .. })));
    assert!(start.elapsed() < Duration::from_secs(4));
    rig.io.close(socket);
}

#[test]
fn quiet_sends_that_fail_are_noticed_although_the_completion_queue_overflows() {
    let mut rig = Rig::<Uring>::new(TINY);
    let sockets: Vec<Socket> = (0..5 * TINY.cq_entries)
        .map(|_| {
            let (socket, client) = rig.connect();
            // Closed so, it resets the connection.
            socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            socket
        })
        .collect();
    for (index, socket) in sockets.iter().enumerate() {
        rig.io.send_unawaited(socket, name(index as u32), batch(b"to nobody"));
    }
    let mut failed = vec![0; sockets.len()];
    for _ in 0..sockets.len() {
        match rig.next() {
            Completion::Sent { token, result: Err(_), .. } => failed[token.key().index as usize] += 1,
            other => panic!("{other:?} to a client that is gone"),
        }
    }
    assert!(failed.iter().all(|times| *times == 1), "{failed:?}");
    sockets.into_iter().for_each(|socket| rig.io.close(socket));
}
