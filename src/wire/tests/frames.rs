//! Cutting a stream into frames.

use proptest::prelude::*;

use crate::wire::testing::{Body, vbi};
use crate::wire::{DecodeError, Frame, LengthForm, NextFrame, PACKET_SIZE_MAX, Reason, next_frame};

const FORMS: [LengthForm; 2] = [LengthForm::Shortest, LengthForm::Any];

fn need(input: &[u8]) -> usize {
    match next_frame(input, u32::MAX, LengthForm::Shortest) {
        Ok(NextFrame::Incomplete { need }) => need,
        other => panic!("{input:02X?}: {other:?}"),
    }
}

#[test]
fn need_is_one_more_byte_until_the_size_is_known_and_then_the_whole_packet() {
    assert_eq!(need(&[]), 2);
    assert_eq!(need(&[0x30]), 2);
    assert_eq!(need(&[0x30, 0x80]), 3);
    assert_eq!(need(&[0x30, 0x80, 0x80]), 4);
    assert_eq!(need(&[0x30, 0x80, 0x80, 0x80]), 5);
    assert_eq!(need(&[0x30, 0x05]), 7);
    assert_eq!(need(&[0x30, 0x05, 1, 2, 3, 4]), 7);
    assert_eq!(need(&[0x30, 0x80, 0x01]), 131);
    assert_eq!(need(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]), PACKET_SIZE_MAX);
}

#[test]
fn u5_2_1_4_2_packet_size_counts_the_fixed_header_and_remaining_length() {
    for (body_len, size) in [(0, 2), (127, 129), (128, 131), (16_383, 16_386), (16_384, 16_388)] {
        let packet = Body(vec![7; body_len]).packet(0x30);
        assert_eq!(packet.len(), size);
        let expected = Frame { first: 0x30, body: &packet[size - body_len..], len: size };
        for form in FORMS {
            // A packet of exactly the limit is legal.
            assert_eq!(next_frame(&packet, size as u32, form), Ok(NextFrame::Frame(expected)));
            assert!(next_frame(&packet, size as u32 - 1, form).is_err());
        }
    }
}

#[test]
fn mqtt_3_2_2_15_a_packet_above_the_limit_is_refused_by_its_fixed_header_alone() {
    for (header, limit) in
        [(&[0x30, 0x7F][..], 128), (&[0x30, 0x80, 0x01], 130), (&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], 1 << 20)]
    {
        let error = next_frame(header, limit, LengthForm::Shortest).unwrap_err();
        assert_eq!(error.reason(), Reason::PACKET_TOO_LARGE);
    }
    assert_eq!(need(&[0x30, 0x7F]), 129);
}

#[test]
fn u5_1_5_5_1_remaining_length_has_at_most_four_bytes() {
    for form in FORMS {
        for fifth in [&[][..], &[0x00], &[0x01], &[0x80]] {
            let input = [&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], fifth].concat();
            assert!(matches!(next_frame(&input, u32::MAX, form), Err(DecodeError::Malformed(_))));
        }
    }
}

#[test]
fn mqtt_1_5_5_1_over_long_remaining_length_is_refused_and_mqtt311_u311_2_2_3_1_accepted() {
    for length in [&[0x80, 0x00][..], &[0x81, 0x00], &[0x82, 0x80, 0x00], &[0x80, 0x80, 0x80, 0x00]] {
        let input = [&[0xC0], length, &[1, 2, 3]].concat();
        let strict = next_frame(&input, u32::MAX, LengthForm::Shortest);
        assert!(matches!(strict, Err(DecodeError::Malformed(_))), "{length:02X?}");
        let value = usize::from(length[0] & 0x7F);
        let at = 1 + length.len();
        let expected = Frame { first: 0xC0, body: &input[at..at + value], len: at + value };
        assert_eq!(next_frame(&input, u32::MAX, LengthForm::Any), Ok(NextFrame::Frame(expected)));
    }
    // A zero among the lower bytes is not over-long.
    assert_eq!(need(&[0x30, 0x80, 0x80, 0x01]), 4 + 16_384);
}

#[test]
fn mqtt_6_0_0_2_bytes_of_the_next_packet_are_left_alone() {
    let stream = [&[0xC0, 0x00][..], &[0x30, 0x03, 0, 1, b't'], &[0xE0]].concat();
    let first = Frame { first: 0xC0, body: &[], len: 2 };
    assert_eq!(next_frame(&stream, 100, LengthForm::Shortest), Ok(NextFrame::Frame(first)));
    let second = Frame { first: 0x30, body: &[0, 1, b't'], len: 5 };
    assert_eq!(next_frame(&stream[2..], 100, LengthForm::Shortest), Ok(NextFrame::Frame(second)));
    assert_eq!(need(&stream[7..]), 2);
}

/// Cuts a stream that arrives in pieces, asking again only when the bytes asked for are there.
fn cut_in_pieces(stream: &[u8], pieces: &[usize]) -> Vec<(u8, Vec<u8>)> {
    let (mut frames, mut at, mut arrived, mut wait_for) = (Vec::new(), 0, 0, 0);
    let mut pieces = pieces.iter().cycle();
    loop {
        while arrived - at >= wait_for {
            match next_frame(&stream[at..arrived], u32::MAX, LengthForm::Shortest).unwrap() {
                NextFrame::Frame(frame) => {
                    frames.push((frame.first, frame.body.to_vec()));
                    at += frame.len;
                    wait_for = 0;
                }
                NextFrame::Incomplete { need } => {
                    assert!(need > arrived - at, "asks for bytes that are there");
                    wait_for = need;
                }
            }
        }
        if arrived == stream.len() {
            assert_eq!(at, stream.len());
            return frames;
        }
        arrived = stream.len().min(arrived + pieces.next().unwrap());
    }
}

proptest! {
    #[test]
    fn any_chopping_of_a_stream_gives_the_same_frames(
        packets in prop::collection::vec((any::<u8>(), 0_usize..400), 1..12),
        pieces in prop::collection::vec(1_usize..300, 1..20),
    ) {
        let expected: Vec<(u8, Vec<u8>)> =
            packets.iter().map(|&(first, len)| (first, (0..len).map(|i| i as u8).collect())).collect();
        let stream: Vec<u8> =
            expected.iter().flat_map(|(first, body)| Body(body.clone()).packet(*first)).collect();
        prop_assert_eq!(cut_in_pieces(&stream, &pieces), expected);
    }

    #[test]
    fn mqtt_1_5_5_1_lengths_are_read_as_the_standards_recipe_writes_them(value in 0_usize..=268_435_455) {
        let mut header = vec![0x30];
        header.extend(vbi(value));
        let size = header.len() + value;
        let found = next_frame(&header, u32::MAX, LengthForm::Shortest);
        if value == 0 {
            prop_assert_eq!(found, Ok(NextFrame::Frame(Frame { first: 0x30, body: &[], len: 2 })));
        } else {
            prop_assert_eq!(found, Ok(NextFrame::Incomplete { need: size }));
        }
        prop_assert!(next_frame(&header, size as u32 - 1, LengthForm::Shortest).is_err());
    }
}
