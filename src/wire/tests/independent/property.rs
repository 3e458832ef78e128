//! Properties from the form of `testing` to that of the other codec and back.

use mqtt_protocol_core::mqtt::packet::{
    AssignedClientIdentifier, AuthenticationData, AuthenticationMethod, ContentType, CorrelationData,
    MaximumPacketSize, MessageExpiryInterval, PayloadFormat, PayloadFormatIndicator, Property, ReasonString,
    ReceiveMaximum, RequestProblemInformation, RequestResponseInformation, ResponseTopic, ServerKeepAlive,
    SessionExpiryInterval, SubscriptionIdentifier, TopicAlias, TopicAliasMaximum, UserProperty,
    WillDelayInterval,
};

use crate::wire::testing::Prop;

/// The other codec's form of a property that a client may send, built by its own constructors.
pub(super) fn theirs(prop: &Prop) -> Property {
    match prop {
        Prop::Byte(0x01, 0) => PayloadFormatIndicator::new(PayloadFormat::Binary).unwrap().into(),
        Prop::Byte(0x01, _) => PayloadFormatIndicator::new(PayloadFormat::String).unwrap().into(),
        Prop::Byte(0x17, value) => RequestProblemInformation::new(*value).unwrap().into(),
        Prop::Byte(0x19, value) => RequestResponseInformation::new(*value).unwrap().into(),
        Prop::Two(0x13, value) => ServerKeepAlive::new(*value).unwrap().into(),
        Prop::Two(0x21, value) => ReceiveMaximum::new(*value).unwrap().into(),
        Prop::Two(0x22, value) => TopicAliasMaximum::new(*value).unwrap().into(),
        Prop::Two(0x23, value) => TopicAlias::new(*value).unwrap().into(),
        Prop::Four(0x02, value) => MessageExpiryInterval::new(*value).unwrap().into(),
        Prop::Four(0x11, value) => SessionExpiryInterval::new(*value).unwrap().into(),
        Prop::Four(0x18, value) => WillDelayInterval::new(*value).unwrap().into(),
        Prop::Four(0x27, value) => MaximumPacketSize::new(*value).unwrap().into(),
        Prop::Vbi(_, value) => SubscriptionIdentifier::new(*value).unwrap().into(),
        Prop::Text(0x03, text) => ContentType::new(text).unwrap().into(),
        Prop::Text(0x08, text) => ResponseTopic::new(text).unwrap().into(),
        Prop::Text(0x12, text) => AssignedClientIdentifier::new(text).unwrap().into(),
        Prop::Text(0x15, text) => AuthenticationMethod::new(text).unwrap().into(),
        Prop::Text(0x1F, text) => ReasonString::new(text).unwrap().into(),
        Prop::Data(0x09, bytes) => CorrelationData::new(bytes).unwrap().into(),
        Prop::Data(0x16, bytes) => AuthenticationData::new(bytes).unwrap().into(),
        Prop::Pair(name, value) => UserProperty::new(name, value).unwrap().into(),
        other => panic!("no client sends {other:?}"),
    }
}

/// Our tests' form of any property that the other codec has read.
pub(super) fn ours(property: &Property) -> Prop {
    let id = property.id().as_u8();
    let text = |text: &str| Prop::Text(id, text.to_owned());
    match property {
        Property::PayloadFormatIndicator(p) => Prop::Byte(id, p.val()),
        Property::RequestProblemInformation(p) => Prop::Byte(id, p.val()),
        Property::RequestResponseInformation(p) => Prop::Byte(id, p.val()),
        Property::MaximumQos(p) => Prop::Byte(id, p.val()),
        Property::RetainAvailable(p) => Prop::Byte(id, p.val()),
        Property::WildcardSubscriptionAvailable(p) => Prop::Byte(id, p.val()),
        Property::SubscriptionIdentifierAvailable(p) => Prop::Byte(id, p.val()),
        Property::SharedSubscriptionAvailable(p) => Prop::Byte(id, p.val()),
        Property::ServerKeepAlive(p) => Prop::Two(id, p.val()),
        Property::ReceiveMaximum(p) => Prop::Two(id, p.val()),
        Property::TopicAliasMaximum(p) => Prop::Two(id, p.val()),
        Property::TopicAlias(p) => Prop::Two(id, p.val()),
        Property::MessageExpiryInterval(p) => Prop::Four(id, p.val()),
        Property::SessionExpiryInterval(p) => Prop::Four(id, p.val()),
        Property::WillDelayInterval(p) => Prop::Four(id, p.val()),
        Property::MaximumPacketSize(p) => Prop::Four(id, p.val()),
        Property::SubscriptionIdentifier(p) => Prop::Vbi(id, p.val()),
        Property::ContentType(p) => text(p.val()),
        Property::ResponseTopic(p) => text(p.val()),
        Property::AssignedClientIdentifier(p) => text(p.val()),
        Property::AuthenticationMethod(p) => text(p.val()),
        Property::ResponseInformation(p) => text(p.val()),
        Property::ServerReference(p) => text(p.val()),
        Property::ReasonString(p) => text(p.val()),
        Property::CorrelationData(p) => Prop::Data(id, p.val().to_vec()),
        Property::AuthenticationData(p) => Prop::Data(id, p.val().to_vec()),
        Property::UserProperty(p) => Prop::Pair(p.key().to_owned(), p.val().to_owned()),
    }
}

/// The text of the first property with this identifier.
pub(super) fn text(properties: &[Property], id: u8) -> Option<String> {
    properties.iter().map(ours).find_map(|prop| match prop {
        Prop::Text(found, text) if found == id => Some(text),
        _ => None,
    })
}
