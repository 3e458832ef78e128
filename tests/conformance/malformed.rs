//! Malformed input, generated: from a valid example of each packet type in each version, every cut, every length
//! altered, every flag bit, every property out of place or repeated, every integer over-long, every string broken.
//! Packets that only a server sends are among the examples, since nobody keeps a client from sending them.
//!
//! An example is a list of fields, so that the generator knows where each length stands; `judge` says independently
//! what a broker must do about the result. Each case has a connection of its own. At the end the broker is up and its
//! live objects are what they were.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::judge::{State, Verdict, judge};
use crate::support::client::PATIENCE;
use crate::support::encode::{self, packet, vbi};
use crate::support::live::Watch;
use crate::support::property::{self, Kind, Place, allowed, every};
use crate::support::*;

/// A part of a packet, with what can be done to it.
#[derive(Clone, Debug)]
enum Field {
    Bytes(Vec<u8>),
    /// A two-byte length and text.
    Text(Vec<u8>),
    /// A two-byte length and any bytes.
    Binary(Vec<u8>),
    Properties(Place, Vec<Property>),
}

use Field::{Binary, Bytes, Properties, Text};

/// A valid packet.
struct Example {
    label: &'static str,
    first: u8,
    fields: Vec<Field>,
    state: State,
}

/// How a field is written instead of as it should be.
#[derive(Clone, Debug)]
enum Twist {
    None,
    /// Another number in place of the length.
    Length(u16),
    /// These bytes in place of the text.
    Content(Vec<u8>),
    /// This integer in place of the block's length.
    BlockLength(Vec<u8>),
    /// These property bytes in place of the block's.
    Block(Vec<u8>),
}

impl Field {
    fn write(&self, twist: &Twist, out: &mut Vec<u8>) {
        match (self, twist) {
            (Bytes(bytes), _) => out.extend(bytes),
            (Text(bytes) | Binary(bytes), Twist::Length(length)) => {
                out.extend(length.to_be_bytes());
                out.extend(bytes);
            }
            (Text(_) | Binary(_), Twist::Content(bytes)) => out.extend(encode::string(bytes)),
            (Text(bytes) | Binary(bytes), _) => out.extend(encode::string(bytes)),
            (Properties(_, list), twist) => {
                let mut body: Vec<u8> = list.iter().flat_map(Property::bytes).collect();
                if let Twist::Block(bytes) = twist {
                    body.clone_from(bytes);
                }
                match twist {
                    Twist::BlockLength(form) => out.extend(form),
                    _ => out.extend(vbi(body.len() as u32)),
                }
                out.extend(body);
            }
        }
    }
}

impl Example {
    fn body(&self, at: usize, twist: &Twist) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, field) in self.fields.iter().enumerate() {
            field.write(if index == at { twist } else { &Twist::None }, &mut out);
        }
        out
    }

    fn whole(&self) -> Vec<u8> {
        packet(self.first, self.body(usize::MAX, &Twist::None))
    }
}

/// Valid examples of every packet type of the version, those that only a server sends among them.
fn examples(version: Version) -> Vec<Example> {
    let v5 = version == V5;
    let properties = |place: Place| -> Vec<Field> {
        let fits = |p: &Property| {
            let id = p.id();
            allowed(id, place)
                && !matches!((place, id), (Place::Publish, 0x0B | 0x23) | (Place::Disconnect, 0x11 | 0x1C))
                && !matches!((place, id), (Place::Connect, 0x15 | 0x16))
        };
        let list = every().into_iter().filter(fits).collect();
        if v5 { vec![Properties(place, list)] } else { Vec::new() }
    };
    let none =
        |place: Place| -> Vec<Field> { if v5 { vec![Properties(place, Vec::new())] } else { Vec::new() } };
    let (protocol, level) = version.name_and_level();
    let connect = |flags: u8, rest: Vec<Vec<Field>>| -> Vec<Field> {
        let mut fields = vec![Text(protocol.into()), Bytes(vec![level, flags]), Bytes(vec![0, 60])];
        fields.extend(properties(Place::Connect));
        fields.push(Text(name("m").into_bytes()));
        fields.extend(rest.concat());
        fields
    };
    let will = || {
        let mut fields = properties(Place::Will);
        fields.extend([Text(b"malformed/will".into()), Binary(b"payload".into())]);
        fields
    };
    let user = || vec![Text(b"user".into()), Binary(b"secret".into())];
    let mut all = vec![
        Example { label: "CONNECT", first: 0x10, fields: connect(0x02, vec![]), state: State::First },
        Example {
            label: "CONNECT with will and user",
            first: 0x10,
            fields: connect(0xC6, vec![will(), user()]),
            state: State::First,
        },
    ];
    let mut add = |label, first, fields: Vec<Vec<Field>>| {
        all.push(Example { label, first, fields: fields.concat(), state: State::Accepted });
    };
    let topic = || vec![Text(b"malformed/topic".into())];
    let id = || vec![Bytes(vec![0, 9])];
    add("PUBLISH QoS 0", 0x30, vec![topic(), properties(Place::Publish), vec![Bytes(b"payload".into())]]);
    add("PUBLISH QoS 1", 0x32, vec![topic(), id(), properties(Place::Publish), vec![Bytes(b"p".into())]]);
    add("PUBLISH QoS 2", 0x34, vec![topic(), id(), none(Place::Publish), vec![Bytes(b"p".into())]]);
    add(
        "SUBSCRIBE",
        0x82,
        vec![
            id(),
            properties(Place::Subscribe),
            vec![Text(b"malformed/+".into()), Bytes(vec![1]), Text(b"other/#".into()), Bytes(vec![2])],
        ],
    );
    add(
        "UNSUBSCRIBE",
        0xA2,
        vec![id(), properties(Place::Unsubscribe), vec![Text(b"malformed/+".into()), Text(b"other".into())]],
    );
    for (label, first, place) in [
        ("PUBACK", 0x40, Place::Puback),
        ("PUBREC", 0x50, Place::Pubrec),
        ("PUBREL", 0x62, Place::Pubrel),
        ("PUBCOMP", 0x70, Place::Pubcomp),
    ] {
        add(label, first, vec![id()]);
        if v5 {
            add(label, first, vec![id(), vec![Bytes(vec![0])], properties(place)]);
        }
    }
    add("PINGREQ", 0xC0, vec![]);
    add("DISCONNECT", 0xE0, vec![]);
    // Well formed, and from the wrong side.
    add("CONNACK", 0x20, vec![vec![Bytes(vec![0, 0])], properties(Place::Connack)]);
    add("SUBACK", 0x90, vec![id(), properties(Place::Suback), vec![Bytes(vec![1, 2])]]);
    add(
        "UNSUBACK",
        0xB0,
        vec![id(), properties(Place::Unsuback), vec![Bytes(if v5 { vec![0] } else { vec![] })]],
    );
    add("PINGRESP", 0xD0, vec![]);
    if v5 {
        add("DISCONNECT", 0xE0, vec![vec![Bytes(vec![4])], properties(Place::Disconnect)]);
        add("AUTH", 0xF0, vec![vec![Bytes(vec![0x18])], properties(Place::Auth)]);
    }
    all
}

/// Everything that the generator makes of an example, as (what was done, bytes).
fn cases(version: Version, example: &Example) -> Vec<(String, Vec<u8>)> {
    let mut out = vec![("nothing".to_string(), example.whole())];
    let whole = example.body(usize::MAX, &Twist::None);
    let first = example.first;
    // Cut at every byte: the stream just stops, and the packet ends early with a length that fits.
    let bytes = example.whole();
    out.extend((1..bytes.len()).map(|cut| (format!("stream cut at {cut}"), bytes[..cut].to_vec())));
    out.extend((0..whole.len()).map(|cut| (format!("packet cut at {cut}"), packet(first, &whole[..cut]))));
    out.push(("a byte more".into(), packet(first, [&whole[..], &[0]].concat())));
    // Remaining Length: less, more, maximum, over-long, five bytes.
    for form in [
        vbi(whole.len().saturating_sub(1) as u32),
        vbi(whole.len() as u32 + 1),
        vec![0],
        vec![0xFF, 0xFF, 0xFF, 0x7F],
        over_long(whole.len() as u32),
        vec![0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        vec![0x80, 0x80, 0x80, 0x80, 0x80],
    ] {
        out.push((format!("Remaining Length {form:02x?}"), [&[first][..], &form, &whole].concat()));
    }
    for bit in 0..4 {
        out.push((format!("header bit {bit}"), packet(first ^ 1 << bit, &whole)));
    }
    if example.label.starts_with("CONNECT") {
        let at = 2 + version.name_and_level().0.len() + 1;
        for bit in 0..8 {
            let mut body = whole.clone();
            body[at] ^= 1 << bit;
            out.push((format!("connect flag {bit}"), packet(first, body)));
        }
    }
    for (at, field) in example.fields.iter().enumerate() {
        for (what, twist) in twists(version, field) {
            out.push((format!("field {at}: {what}"), packet(first, example.body(at, &twist))));
        }
    }
    if example.label == "SUBSCRIBE" {
        for bit in 0..8 {
            let mut body = whole.clone();
            let last = body.len() - 1;
            body[last] ^= 1 << bit;
            out.push((format!("option bit {bit}"), packet(first, body)));
        }
    }
    out
}

/// The value with a byte more than need be.
fn over_long(value: u32) -> Vec<u8> {
    let mut form = vbi(value);
    let last = form.len() - 1;
    form[last] |= 0x80;
    form.push(0);
    form
}

fn twists(version: Version, field: &Field) -> Vec<(String, Twist)> {
    let mut out = Vec::new();
    match field {
        Bytes(_) => {}
        Text(text) | Binary(text) => {
            let length = text.len() as u16;
            for other in [0, length.saturating_sub(1), length + 1, u16::MAX] {
                out.push((format!("length {other}"), Twist::Length(other)));
            }
            if matches!(field, Text(_)) {
                for broken in
                    [&b"\0"[..], b"a\0", b"\xED\xA0\x80", b"\xED\xBF\xBF", b"\xC0\x80", b"\xFF", b"a\xE2\x82"]
                {
                    out.push((format!("text {broken:02x?}"), Twist::Content(broken.to_vec())));
                }
                for odd in ["", "#", "+", "a/#/b", "$share/g", "\u{FEFF}"] {
                    out.push((format!("text {odd:?}"), Twist::Content(odd.as_bytes().to_vec())));
                }
            }
        }
        Properties(place, list) => property_twists(version, *place, list, &mut out),
    }
    out
}

fn property_twists(version: Version, place: Place, list: &[Property], out: &mut Vec<(String, Twist)>) {
    assert_eq!(version, V5);
    let body: Vec<u8> = list.iter().flat_map(Property::bytes).collect();
    let length = body.len() as u32;
    for form in [
        vbi(length.saturating_sub(1)),
        vbi(length + 1),
        vec![0],
        vec![0xFF, 0xFF, 0xFF, 0x7F],
        over_long(length),
        vec![0x80, 0x80, 0x80, 0x80, 0x01],
    ] {
        out.push((format!("property length {form:02x?}"), Twist::BlockLength(form)));
    }
    let mut block = |what: String, bytes: Vec<u8>| out.push((what, Twist::Block(bytes)));
    for property in every() {
        let (id, bytes) = (property.id(), property.bytes());
        block(format!("property {id:#04x} added"), [&body[..], &bytes].concat());
        block(format!("property {id:#04x} alone"), bytes.clone());
        block(format!("property {id:#04x} twice"), [&bytes[..], &bytes].concat());
        // Its value cut at every byte, as the last of the block.
        for cut in 1..bytes.len() {
            block(format!("property {id:#04x} cut at {cut}"), bytes[..cut].to_vec());
        }
        // Its identifier, which is a variable byte integer, over-long.
        block(
            format!("property {id:#04x} with an over-long identifier"),
            [&[id | 0x80, 0], &bytes[1..]].concat(),
        );
        // Every length inside it altered; a string pair has two.
        let lengths = match property::kind(id) {
            Some(Kind::Str | Kind::Bin) => vec![1],
            Some(Kind::Pair) => vec![1, 1 + 2 + usize::from(bytes[2])],
            _ => Vec::new(),
        };
        for at in lengths {
            let length = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            for other in [0, length.saturating_sub(1), length + 1, u16::MAX] {
                let mut wrong = bytes.clone();
                wrong[at..at + 2].copy_from_slice(&other.to_be_bytes());
                block(format!("property {id:#04x} with length {other} at {at}"), wrong);
            }
        }
        if let Property::SubscriptionId(value) = property {
            for form in
                [over_long(value), vec![0x80, 0x80, 0x80, 0x80, 0x01], vec![0xFF, 0xFF, 0xFF, 0xFF, 0x7F]]
            {
                block(format!("property {id:#04x} = {form:02x?}"), [&[id][..], &form].concat());
            }
        }
        for value in [0u8, 1, 2, 255] {
            if bytes.len() == 2 {
                block(format!("property {id:#04x} = {value}"), vec![id, value]);
            }
        }
        if matches!(bytes.len(), 3 | 5) {
            let zeros = vec![0; bytes.len() - 1];
            block(format!("property {id:#04x} = 0"), [vec![id], zeros].concat());
        }
    }
    for id in [0x00, 0x04, 0x10, 0x1B, 0x2B, 0x7F] {
        block(format!("unknown property {id:#04x}"), vec![id, 0]);
    }
    block("an identifier that needs two bytes".into(), vec![0x80, 0x01, 0]);
    block("an identifier of five bytes".into(), vec![0x81, 0x80, 0x80, 0x80, 0x00, 0]);
    let broken: [&[u8]; 4] = [b"a\0b", b"\xED\xA0\x80", b"\xC0\x80", b"\xFF"];
    for text in broken {
        for id in [0x03, 0x08, 0x15, 0x1F] {
            if allowed(id, place) {
                block(format!("property {id:#04x} {text:02x?}"), [vec![id], encode::string(text)].concat());
            }
        }
        for pair in [[encode::string(text), encode::string("v")], [encode::string("n"), encode::string(text)]]
        {
            block(format!("user property {text:02x?}"), [vec![0x26], pair.concat()].concat());
        }
    }
}

/// Sends one case and compares what happens with the verdict.
fn run(
    broker: &Broker,
    version: Version,
    state: State,
    verdict: &Verdict,
    bytes: &[u8],
) -> Result<(), String> {
    let mut client = match state {
        State::First => Client::open(broker, version),
        State::Accepted => Client::fresh(broker, version),
    };
    client.send(bytes);
    match verdict {
        Verdict::Legal => client.send(encode::PINGREQ),
        Verdict::Incomplete => client.shutdown_write(),
        Verdict::Ended | Verdict::NotMqtt | Verdict::Malformed | Verdict::NoName | Verdict::Refused(_) => {}
    }
    // Answers to what is legal in front of the fault may come first.
    let end = loop {
        match client.next(PATIENCE) {
            Event::Packet(Packet::Pingresp) if *verdict == Verdict::Legal => {
                break Event::Packet(Packet::Pingresp);
            }
            Event::Packet(Packet::Connack(connack)) if connack.code == 0 => {}
            Event::Packet(packet @ (Packet::Disconnect(_) | Packet::Connack(_))) => {
                break Event::Packet(packet);
            }
            Event::Packet(_) => {}
            end => break end,
        }
    };
    let code = match &end {
        Event::Packet(Packet::Disconnect(reason)) => Some(reason.code),
        Event::Packet(Packet::Connack(connack)) => Some(connack.code),
        Event::Packet(_) | Event::Closed | Event::Nothing => None,
    };
    let silent = end == Event::Closed;
    let right = match verdict {
        Verdict::Legal => end == Event::Packet(Packet::Pingresp),
        // A length above the broker's maximum is refused at once.
        Verdict::Ended => silent,
        // So is a CONNECT that its first bytes spoil.
        Verdict::Incomplete if state == State::First => {
            silent || matches!(code, Some(0x95 | 0x81 | 0x84 | 0x01))
        }
        Verdict::Incomplete => silent || code == Some(0x95),
        Verdict::NotMqtt => silent || code == Some(if version == V5 { 0x84 } else { 0x01 }),
        Verdict::NoName => code == Some(0x02),
        Verdict::Malformed => refused_with(version, state, 0x81, silent, code, bytes),
        Verdict::Refused(expected) => refused_with(version, state, *expected, silent, code, bytes),
    };
    if !right {
        return Err(format!("{verdict:?}, and the broker's end of it is {end:?}"));
    }
    if code.is_some() && client.next(PATIENCE) != Event::Closed {
        return Err("refused, and not closed".into());
    }
    if *verdict == Verdict::Legal {
        client.send(encode::DISCONNECT);
        forget_session(broker, version, state, bytes);
    }
    Ok(())
}

/// Whether this end of a connection is the right one for a fault with this code.
fn refused_with(
    version: Version,
    state: State,
    expected: u8,
    silent: bool,
    code: Option<u8>,
    bytes: &[u8],
) -> bool {
    if version != V5 {
        return silent;
    }
    // A CONNECT whose Remaining Length cannot be read does not get as far as its version.
    let headless = state == State::First && bytes[1..].iter().take(4).all(|byte| byte & 0x80 != 0);
    code == Some(expected) || (headless && silent)
}

/// A legal CONNECT of 3.x with Clean Session 0 leaves a session: ends it.
fn forget_session(broker: &Broker, version: Version, state: State, bytes: &[u8]) {
    let flags_at = 2 + 2 + version.name_and_level().0.len() + 1;
    if version != V5 && state == State::First && bytes[1] & 0x80 == 0 {
        let mut clean = bytes.to_vec();
        clean[flags_at] |= 0x02;
        let mut client = Client::open(broker, version);
        client.send(clean);
        client.send(encode::DISCONNECT);
        client.raw_until_closed();
    }
}

#[test]
fn mqtt_4_13_1_1_mqtt311_4_8_0_1_u5_2_1_4_1_every_generated_case_gets_its_reaction() {
    for shards in [1, 4] {
        let broker = Broker::start(shards, &["--sys-interval", "1", "--log-level", "error"]);
        let connack = Client::connect(&broker, &Connect::new(V5, name("c"))).1;
        let alias_max = connack
            .properties
            .iter()
            .find_map(|p| if let Property::TopicAliasMaximum(max) = p { Some(*max) } else { None })
            .unwrap_or(0);
        let mut watch = Watch::new(&broker);
        let base = watch.settled();
        let all = generated(alias_max);
        let count = all.len();
        assert!(count > 5000, "{count} cases");
        // Cases of CONNECT share a Client Identifier and would take each other over: one after the other.
        let (first, accepted): (Vec<Case>, Vec<Case>) =
            all.into_iter().partition(|case| case.state == State::First);
        let failures = Mutex::new(Vec::new());
        let next = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let work = |cases: &[Case], next: &AtomicUsize| {
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Case { version, state, verdict, bytes, label } = case;
                let outcome = std::panic::catch_unwind(|| run(&broker, *version, *state, verdict, bytes));
                let why = match outcome {
                    Ok(Ok(())) => continue,
                    Ok(Err(why)) => why,
                    Err(_) => "the answer itself breaks a rule".into(),
                };
                let mut failures = failures.lock().expect("no holder panics");
                failures.push(format!("{version:?} {label}: {why}: {bytes:02x?}"));
                if failures.len() >= FAILURES_SHOWN {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| work(&first, &next[0]));
            for _ in 0..7 {
                scope.spawn(|| work(&accepted, &next[1]));
            }
        });
        let failures = failures.into_inner().expect("no holder panics");
        assert!(failures.is_empty(), "of {count} cases with {shards} shards:\n{}", failures.join("\n"));
        // The flag RETAIN is among the bits that were turned.
        Client::fresh(&broker, V5).say_retained("malformed/topic", "");
        watch.expect(&base);
    }
}

/// After so many failures nobody reads on.
const FAILURES_SHOWN: usize = 30;

struct Case {
    version: Version,
    label: String,
    state: State,
    verdict: Verdict,
    bytes: Vec<u8>,
}

/// All cases of all versions, each with its verdict.
fn generated(alias_max: u16) -> Vec<Case> {
    let mut all = Vec::new();
    for version in [V5, V311, V31] {
        for example in examples(version) {
            let verdict = judge(version, example.state, alias_max, &example.whole());
            let right = match example.label {
                "AUTH" | "CONNACK" | "SUBACK" | "UNSUBACK" | "PINGRESP" => Verdict::Refused(0x82),
                "DISCONNECT" => Verdict::Ended,
                _ => Verdict::Legal,
            };
            assert_eq!(verdict, right, "the example of {} is what it claims", example.label);
            all.extend(cases(version, &example).into_iter().map(|(what, bytes)| Case {
                version,
                label: format!("{}, {what}", example.label),
                state: example.state,
                verdict: judge(version, example.state, alias_max, &bytes),
                bytes,
            }));
        }
    }
    all
}

#[test]
fn u5_2_1_4_1_u311_2_3_1_a_stream_may_be_cut_into_reads_at_any_byte() {
    // One stream of every packet, cut in two at each byte and dripped byte by byte: the same answers.
    each_of(&[V5, V311], |b, v| {
        // A topic of its own for each: what the client before sent may still be on its way between shards.
        let stream = || {
            let topic = &*name("t");
            [
                encode::subscribe(v, 1, &[], &[(topic, 2)]),
                Publish::new(topic, "a").bytes(v),
                Publish::new(topic, "bb").qos(1, 2).bytes(v),
                encode::PINGREQ.to_vec(),
                encode::unsubscribe(v, 3, &[topic]),
            ]
            .concat()
        };
        let collect = |client: &mut Client| {
            let mut kinds = Vec::new();
            while kinds.len() < 6 {
                kinds.push(match client.expect_packet() {
                    Packet::Publish(publish) => publish.text(),
                    Packet::Suback(_) => "suback".into(),
                    Packet::Puback(_) => "puback".into(),
                    Packet::Unsuback(_) => "unsuback".into(),
                    Packet::Pingresp => "pingresp".into(),
                    other => panic!("{other:?}"),
                });
            }
            kinds.sort();
            kinds
        };
        let expected = ["a", "bb", "pingresp", "puback", "suback", "unsuback"];
        // UNSUBSCRIBE may overtake the messages in front of it only if they are lost, which they may not be.
        for cut in 1.. {
            let stream = stream();
            if cut >= stream.len() {
                break;
            }
            let mut client = Client::fresh(b, v);
            client.send(&stream[..cut]);
            std::thread::sleep(std::time::Duration::from_micros(300));
            client.send(&stream[cut..]);
            assert_eq!(collect(&mut client), expected, "cut at {cut}");
        }
        let mut client = Client::fresh(b, v);
        for byte in stream() {
            client.send([byte]);
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        assert_eq!(collect(&mut client), expected);
    });
}
