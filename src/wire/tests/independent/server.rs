//! What a server sends, written by ours and read by the other codec.

use super::*;

fn is_connack_reason(code: u8) -> bool {
    Reason(code).fits_connack()
}

fn codes(fits: fn(Reason) -> bool) -> impl Strategy<Value = Vec<Reason>> {
    let all: Vec<Reason> = (0..=0xFF).map(Reason).filter(|reason| fits(*reason)).collect();
    prop::collection::vec(prop::sample::select(all), 1..20)
}

/// The properties of a CONNACK as [`ConnAck`] has them, in no order.
#[derive(Clone, Debug)]
struct Announced {
    numbers: [Option<u32>; 5],
    flags: [Option<bool>; 4],
    texts: [Option<String>; 4],
    method: Option<(String, Option<Vec<u8>>)>,
    pairs: Vec<(String, String)>,
}

fn announced() -> impl Strategy<Value = Announced> {
    let number = || prop::option::of(1..=u32::MAX);
    let flag = || prop::option::of(any::<bool>());
    let text = || prop::option::of("[^\0]{0,60}");
    let data = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    (
        [number(), number(), number(), number(), number()],
        [flag(), flag(), flag(), flag()],
        [text(), text(), text(), text()],
        prop::option::of(("[^\0]{0,20}", data)),
        prop::collection::vec(("[^\0]{0,12}", "[^\0]{0,60}"), 0..4),
    )
        .prop_map(|(numbers, flags, texts, method, pairs)| Announced {
            numbers,
            flags,
            texts,
            method,
            pairs,
        })
}

impl Announced {
    fn properties(&self) -> Vec<Prop> {
        let two = |id, number: Option<u32>| number.map(|value| Prop::Two(id, value as u16 | 1));
        let flag = |id, flag: Option<bool>| flag.map(|value| Prop::Byte(id, u8::from(value)));
        let text = |id, text: &Option<String>| text.clone().map(|text| Prop::Text(id, text));
        let [expiry, size, receive, alias, keep_alive] = self.numbers;
        let [retain, wildcard, identifier, shared] = self.flags;
        let mut props: Vec<Prop> = [
            expiry.map(|value| Prop::Four(0x11, value)),
            size.map(|value| Prop::Four(0x27, value)),
            two(0x21, receive),
            two(0x22, alias),
            two(0x13, keep_alive),
            flag(0x25, retain),
            flag(0x28, wildcard),
            flag(0x29, identifier),
            flag(0x2A, shared),
            text(0x12, &self.texts[0]),
            text(0x1F, &self.texts[1]),
            text(0x1A, &self.texts[2]),
            text(0x1C, &self.texts[3]),
        ]
        .into_iter()
        .flatten()
        .collect();
        if let Some((method, data)) = &self.method {
            props.push(Prop::Text(0x15, method.clone()));
            props.extend(data.clone().map(|data| Prop::Data(0x16, data)));
        }
        props.extend(self.pairs.iter().map(|(name, value)| Prop::pair(name, value)));
        props
    }
}

/// By identifier; User Properties keep their order among themselves.
fn sorted(mut props: Vec<Prop>) -> Vec<Prop> {
    props.sort_by_key(Prop::id);
    props
}

proptest! {
    #[test]
    fn connack_as_the_other_codec_reads_it(
        version in version(),
        present in any::<bool>(),
        reason in prop::sample::select((0..=0xFF).filter(|code| is_connack_reason(*code)).collect::<Vec<u8>>()),
        announced in announced(),
        maximum_qos in prop::option::of(prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce])),
    ) {
        let two = |number: Option<u32>| number.map(|value| value as u16 | 1);
        let [session_expiry_s, packet_size_max, receive, alias, keep_alive] = announced.numbers;
        let [retain_available, wildcard, identifier, shared] = announced.flags;
        let pairs: Vec<(&str, &str)> = announced.pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        let connack = ConnAck {
            session_present: present,
            reason: Reason(reason),
            session_expiry_s,
            receive_maximum: two(receive),
            maximum_qos,
            retain_available,
            packet_size_max,
            assigned_client_id: announced.texts[0].as_deref(),
            topic_alias_max: two(alias),
            reason_string: announced.texts[1].as_deref(),
            user_properties: &pairs,
            wildcard_subscription_available: wildcard,
            subscription_identifier_available: identifier,
            shared_subscription_available: shared,
            server_keep_alive_s: two(keep_alive),
            response_information: announced.texts[2].as_deref(),
            server_reference: announced.texts[3].as_deref(),
            authentication_method: announced.method.as_ref().map(|(method, _)| &**method),
            authentication_data: announced.method.as_ref().and_then(|(_, data)| data.as_deref()),
        };
        let mut packet = Vec::new();
        if encode_connack(&mut packet, version, &connack, u32::MAX) != ConnAckEncoded::Written {
            // 3.x has no word for this reason.
            prop_assert!(version == Version::V311 && packet.is_empty());
            return Ok(());
        }
        let Said::Connack { session_present, reason: code, properties } = by_theirs(version, &packet).unwrap()
        else { panic!("no CONNACK") };
        prop_assert_eq!(session_present, present && reason == 0);
        if version == Version::V311 {
            prop_assert_eq!(code == 0, reason == 0);
            return Ok(());
        }
        prop_assert_eq!(code, reason);
        let mut meant = announced.properties();
        meant.extend(maximum_qos.map(|qos| Prop::Byte(0x24, qos as u8)));
        prop_assert_eq!(sorted(properties), sorted(meant));
    }

    #[test]
    fn publish_as_the_other_codec_reads_it(
        (version, qos) in (version(), qos()),
        (dup, retain) in any::<(bool, bool)>(),
        packet_id in 1..=u16::MAX,
        topic in "[^\0+#/]{1,200}",
        topic_alias in any::<u16>(),
        expiry_s in prop::option::of(any::<u32>()),
        identifiers in prop::collection::vec(1_u32..=268_435_455, 0..5),
        props in crate::wire::tests::properties::message_props(0x23),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let forwarded: Vec<Prop> =
            props.into_iter().filter(|prop| ![0x02, 0x23].contains(&prop.id())).collect();
        let bytes = properties(&forwarded);
        let dup = dup && qos != Qos::AtMostOnce;
        let head = PublishHead {
            version, dup, qos, retain, packet_id, topic: &topic, topic_alias, expiry_s,
            identifiers: &identifiers, properties: &bytes, payload_len: payload.len(),
        };
        let said = told(version, |out| {
            head.encode(out);
            out.extend(&payload);
        });
        let mut meant = Message {
            dup, qos: qos as u8, retain, topic, payload,
            packet_id: if qos == Qos::AtMostOnce { 0 } else { packet_id },
            ..Message::default()
        };
        if version == Version::V5 {
            meant = Message { topic_alias, expiry_s, identifiers, forwarded, ..meant };
        }
        prop_assert_eq!(said, Said::Publish(meant));
    }

    #[test]
    fn acknowledgements_as_the_other_codec_reads_them(
        version in version(),
        (kind, reason) in ack(),
        packet_id in 1..=u16::MAX,
    ) {
        let which = match kind {
            4 => AckKind::PubAck,
            5 => AckKind::PubRec,
            6 => AckKind::PubRel,
            _ => AckKind::PubComp,
        };
        let said = told(version, |out| encode_ack(out, version, which, packet_id, Reason(reason)));
        let reason = if version == Version::V5 { reason } else { 0 };
        prop_assert_eq!(said, Said::Ack { kind, packet_id, reason });
    }

    #[test]
    fn suback_and_unsuback_as_the_other_codec_reads_them(
        version in version(),
        packet_id in 1..=u16::MAX,
        granted in codes(Reason::fits_suback),
        ended in codes(Reason::fits_unsuback),
    ) {
        let in_311 = |reason: &Reason| if reason.is_error() { 0x80 } else { reason.0 };
        let said = told(version, |out| encode_suback(out, version, packet_id, &granted));
        let reasons = match version {
            Version::V5 => granted.iter().map(|reason| reason.0).collect(),
            Version::V31 | Version::V311 => granted.iter().map(in_311).collect(),
        };
        prop_assert_eq!(said, Said::Codes { kind: 9, packet_id, reasons });
        let said = told(version, |out| encode_unsuback(out, version, packet_id, &ended));
        let reasons = match version {
            Version::V5 => ended.iter().map(|reason| reason.0).collect(),
            Version::V31 | Version::V311 => Vec::new(),
        };
        prop_assert_eq!(said, Said::Codes { kind: 11, packet_id, reasons });
    }

    #[test]
    fn disconnect_auth_and_pingresp_as_the_other_codec_reads_them(
        reasons in codes(Reason::fits_server_disconnect),
        text in prop::option::of("[^\0]{0,200}"),
        step in prop::sample::select(vec![Reason::SUCCESS, Reason::CONTINUE_AUTHENTICATION]),
        method in "[^\0]{0,30}",
        data in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
    ) {
        let reason = reasons[0];
        prop_assume!(reason != Reason::BAD_AUTHENTICATION_METHOD); // see the differences in mod.rs
        let said = told(Version::V5, |out| encode_disconnect(out, reason, text.as_deref(), u32::MAX));
        let meant = Said::Disconnect { reason: reason.0, session_expiry_s: None, reason_string: text };
        prop_assert_eq!(said, meant);
        let said = told(Version::V5, |out| encode_auth(out, step, &method, data.as_deref()));
        prop_assert_eq!(said, Said::Auth { reason: step.0, method: Some(method), data });
        for version in BOTH {
            prop_assert_eq!(told(version, encode_pingresp), Said::Pingresp);
        }
    }
}
