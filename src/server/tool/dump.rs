//! What is kept as JSON, one object a line.

use std::io::{self, BufWriter, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Looked;
use crate::clock::NEVER;
use crate::config::DumpWhat;
use crate::io::files::OsFiles;
use crate::memory::MessageView;
use crate::store::{self, Delivery, Record, SessionImage};

/// Writes what is asked for.
pub(super) fn dump(files: &OsFiles, looked: &Looked, what: DumpWhat, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    let mut line = |value: Value| writeln!(out, "{value}");
    let mut sessions: Vec<&SessionImage> = looked.read.sessions.iter().map(|session| &**session).collect();
    sessions.sort_by(|one, other| one.client_id.cmp(&other.client_id));
    for session in sessions {
        if what.sessions {
            line(of_session(session))?;
        }
        if what.subscriptions {
            session.filters().iter().try_for_each(|one| line(of_subscription(session, one)))?;
        }
        if what.messages {
            messages(session, &mut line)?;
        }
    }
    if what.retained {
        let mut retained: Vec<_> = looked.read.retained.iter().collect();
        retained.sort_by(|one, other| one.topic().cmp(other.topic()));
        for message in retained {
            let mut object = of_message(&message.view());
            object.insert("type".to_owned(), "retained".into());
            line(object.into())?;
        }
    }
    if what.records {
        for shard in 0..looked.manifest.shards {
            store::visit(files, looked.manifest.origin(shard), &mut |seen, record| {
                let mut object = match record {
                    Ok(record) => of_record(record),
                    Err(store::Damaged) => object(json!({"record": "damaged"})),
                };
                object.insert("type".to_owned(), "record".into());
                object.insert("shard".to_owned(), shard.into());
                object.insert("file".to_owned(), seen.path.into());
                object.insert("segment".to_owned(), seen.segment.into());
                object.insert("commit".to_owned(), seen.commit.into());
                object.insert("at".to_owned(), seen.wall.into());
                line(object.into())
            })?;
        }
    }
    out.flush()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

/// A moment; null for never.
fn moment(at: u64) -> Value {
    if at == NEVER { Value::Null } else { at.into() }
}

/// Adds bytes as text, or else in base64 under a name that says so.
fn bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

fn of_session(session: &SessionImage) -> Value {
    let mut will = Value::Null;
    if let Some(stored) = &session.will {
        let mut inner = object(json!({
            "topic": stored.topic, "qos": stored.qos as u8, "retain": stored.retain,
            "delay_s": stored.delay_s, "expiry_s": stored.expiry_s, "due_at": moment(stored.due_at),
        }));
        bytes(&mut inner, "payload", &stored.payload);
        properties(&mut inner, &stored.properties);
        will = inner.into();
    }
    json!({
        "type": "session", "client_id": session.client_id, "user": session.user,
        "by_certificate": session.by_certificate, "expiry_s": session.expiry_s,
        "connected": session.ends_at.is_none(), "ends_at": session.ends_at.map(moment), "will": will,
        "subscriptions": session.filters().len(), "queued": session.queue.len(),
        "behind_retained": session.behind.len(), "in_flight": session.flying.len(),
    })
}

fn of_subscription(session: &SessionImage, one: &store::Filter) -> Value {
    json!({
        "type": "subscription", "client_id": session.client_id, "filter": one.filter,
        "qos": one.options & 3, "no_local": one.options & 4 != 0,
        "retain_as_published": one.options & 8 != 0, "retain_handling": one.options >> 4 & 3,
        "identifier": (one.identifier != 0).then_some(one.identifier),
    })
}

fn messages(session: &SessionImage, line: &mut impl FnMut(Value) -> io::Result<()>) -> io::Result<()> {
    let of = |place: &str, packet_id: Option<u16>, delivery: &Delivery| {
        let mut object = of_message(&delivery.message.view());
        object.insert("type".to_owned(), "message".into());
        object.insert("client_id".to_owned(), (*session.client_id).into());
        object.insert("place".to_owned(), place.into());
        object.insert("packet_id".to_owned(), packet_id.into());
        object.insert("published_qos".to_owned(), (delivery.message.qos() as u8).into());
        object.insert("qos".to_owned(), (delivery.qos as u8).into());
        object.insert("identifiers".to_owned(), delivery.identifiers.to_vec().into());
        if !delivery.share.is_empty() {
            object.insert("shared".to_owned(), (*delivery.share).into());
        }
        Value::from(object)
    };
    for (packet_id, delivery) in &session.flying {
        line(of("in_flight", Some(*packet_id), delivery))?;
    }
    for delivery in &session.queue {
        line(of("queued", None, delivery))?;
    }
    for delivery in &session.behind {
        line(of("behind_retained", None, delivery))?;
    }
    let client_id = &session.client_id;
    for packet_id in &session.released {
        line(json!({"type": "waits_for_pubcomp", "client_id": client_id, "packet_id": packet_id}))?;
    }
    for packet_id in &session.received {
        line(json!({"type": "waits_for_pubrel", "client_id": client_id, "packet_id": packet_id}))?;
    }
    Ok(())
}

/// Topic, payload and what goes with them.
fn of_message(view: &MessageView<'_>) -> Map<String, Value> {
    let mut object = object(json!({
        "topic": view.topic, "qos": view.qos as u8, "retain": view.retain,
        "expires_at": moment(view.expires_at),
    }));
    bytes(&mut object, "payload", view.payload);
    properties(&mut object, view.properties);
    object
}

/// Adds the properties of a PUBLISH that are kept with it; what cannot be read is left out.
fn properties(object: &mut Map<String, Value>, encoded: &[u8]) {
    fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (len, tail) = rest.split_first_chunk::<2>()?;
        let (bytes, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        *rest = tail;
        Some(bytes)
    }
    let mut users = Vec::new();
    let mut rest = encoded;
    while let Some((id, tail)) = rest.split_first() {
        rest = tail;
        let read = match id {
            0x01 => rest.split_first().map(|(format, tail)| {
                object.insert("payload_format".to_owned(), (*format).into());
                rest = tail;
            }),
            0x03 => string(&mut rest).map(|text| bytes(object, "content_type", text)),
            0x08 => string(&mut rest).map(|text| bytes(object, "response_topic", text)),
            0x09 => string(&mut rest).map(|data| bytes(object, "correlation_data", data)),
            0x26 => string(&mut rest).zip(string(&mut rest)).map(|(name, value)| {
                users.push(json!([String::from_utf8_lossy(name), String::from_utf8_lossy(value)]));
            }),
            _ => None,
        };
        if read.is_none() {
            break;
        }
    }
    if !users.is_empty() {
        object.insert("user_properties".to_owned(), users.into());
    }
}

fn of_record(record: &Record<'_>) -> Map<String, Value> {
    let of_queued = |name: &str, index: u32, packet_id: Option<u16>, queued: &store::Queued<'_>| {
        json!({
            "record": name, "session": index, "packet_id": packet_id, "qos": queued.qos as u8,
            "shared": queued.share,
        })
    };
    let id = |name: &str, session: u32, packet_id: u16| json!({"record": name, "session": session, "packet_id": packet_id});
    object(match *record {
        Record::Began { index, client_id, user, .. } => {
            json!({"record": "began", "session": index, "client_id": client_id, "user": user})
        }
        Record::Connected { index, expiry_s } => {
            json!({"record": "connected", "session": index, "expiry_s": expiry_s})
        }
        Record::Left { index, ends_at, will_at } => json!({
            "record": "left", "session": index, "ends_at": moment(ends_at), "will_at": moment(will_at),
        }),
        Record::Ended { index } => json!({"record": "ended", "session": index}),
        Record::Will { index, ref will } => json!({
            "record": "will", "session": index, "topic": will.topic, "qos": will.qos as u8,
            "retain": will.retain, "delay_s": will.delay_s, "bytes": will.payload.len(),
        }),
        Record::NoWill { index } => json!({"record": "no_will", "session": index}),
        Record::Subscribed { index, filter, options, identifier } => json!({
            "record": "subscribed", "session": index, "filter": filter, "options": options,
            "identifier": identifier,
        }),
        Record::Unsubscribed { index, filter } => {
            json!({"record": "unsubscribed", "session": index, "filter": filter})
        }
        Record::Message { name, ref message } => {
            let mut object = of_message(message);
            object.insert("record".to_owned(), "message".into());
            object.insert("name".to_owned(), name.into());
            object.into()
        }
        Record::Again { name } => json!({"record": "again", "name": name}),
        Record::Queued { index, ref queued } => of_queued("queued", index, None, queued),
        Record::Flying { index, packet_id, ref queued } => {
            of_queued("flying", index, Some(packet_id), queued)
        }
        Record::Sent { index, packet_id } => id("sent", index, packet_id),
        Record::Acked { index, packet_id } => id("acked", index, packet_id),
        Record::Released { index, packet_id } => id("released", index, packet_id),
        Record::Dropped { index, from, count } => {
            json!({"record": "dropped", "session": index, "from": from, "count": count})
        }
        Record::Behind { index, ref queued } => of_queued("behind", index, None, queued),
        Record::Ahead { index, at } => json!({"record": "ahead", "session": index, "at_place": at}),
        Record::Received { index, packet_id } => id("received", index, packet_id),
        Record::Freed { index, packet_id } => id("freed", index, packet_id),
        Record::Retained => json!({"record": "retained"}),
        Record::Cleared { topic } => json!({"record": "cleared", "topic": topic}),
        Record::Given { number, group } => {
            json!({"record": "given", "number": number, "group": format!("{group:016x}")})
        }
        Record::Passed { number } => json!({"record": "passed", "number": number}),
        Record::Taken { index, publisher, packet_id } => json!({
            "record": "taken", "session": index, "publisher": format!("{publisher:016x}"), "packet_id": packet_id,
        }),
        Record::Forgot { publisher, packet_id } => json!({
            "record": "forgot", "publisher": format!("{publisher:016x}"), "packet_id": packet_id,
        }),
        Record::WalkBegins => json!({"record": "walk_begins"}),
        Record::WalkEnds => json!({"record": "walk_ends"}),
        Record::Stopped => json!({"record": "stopped"}),
    })
}
