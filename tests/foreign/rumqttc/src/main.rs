//! rumqttc against a broker, in MQTT 3.1.1 and 5.0. Arguments: host and port.
//!
//! Its two protocol versions are two sets of types of the same shape, so one macro writes the scenarios for both.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn target() -> (String, u16) {
    let mut arguments = std::env::args().skip(1);
    let host = arguments.next().expect("a host");
    (host, arguments.next().and_then(|port| port.parse().ok()).expect("a port"))
}

fn unique(label: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{label}{:x}r{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn megabyte() -> Vec<u8> {
    (0..1024 * 1024u32).map(|i| (i * 7 % 251) as u8).collect()
}

/// What a scenario looks at in a message.
#[derive(Debug)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
}

impl Message {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

macro_rules! scenarios {
    ($module:ident, $title:literal, $($path:ident)::+, $packets:path, $filter:path, $keep:expr, $size:expr) => {
        mod $module {
            use std::future::Future;
            use std::pin::Pin;

            use $($path)::+::mqttbytes::QoS;
            use $($path)::+::{AsyncClient, Event, MqttOptions};
            use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
            use tokio::task::JoinHandle;
            use tokio::time::timeout;

            use super::{Message, PATIENCE, megabyte, target, unique};
            use $packets as packets;
            use packets::{LastWill, Packet};

            struct Client {
                calls: AsyncClient,
                session_present: bool,
                messages: UnboundedReceiver<Message>,
                others: UnboundedReceiver<Packet>,
                driver: JoinHandle<()>,
            }

            const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

            impl Client {
                async fn open(change: impl FnOnce(&mut MqttOptions)) -> Client {
                    let (host, port) = target();
                    let mut options = MqttOptions::new(unique("r"), host, port);
                    let size: fn(&mut MqttOptions) = $size;
                    size(&mut options);
                    change(&mut options);
                    let (calls, mut events) = AsyncClient::new(options, 100);
                    let (to_messages, messages) = unbounded_channel();
                    let (to_others, mut others) = unbounded_channel();
                    let driver = tokio::spawn(async move {
                        // An error ends it: this client does not reconnect.
                        while let Ok(event) = events.poll().await {
                            match event {
                                Event::Incoming(Packet::Publish(publish)) => {
                                    let _ = to_messages.send(Message {
                                        topic: String::from_utf8_lossy(publish.topic.as_ref()).into_owned(),
                                        payload: publish.payload.to_vec(),
                                        qos: publish.qos as u8,
                                        retain: publish.retain,
                                    });
                                }
                                Event::Incoming(Packet::PingResp { .. }) | Event::Outgoing(_) => {}
                                Event::Incoming(packet) => {
                                    let _ = to_others.send(packet);
                                }
                            }
                        }
                    });
                    let connack = timeout(PATIENCE, others.recv()).await.expect("CONNACK in time");
                    let Some(Packet::ConnAck(connack)) = connack else { panic!("CONNACK, got {connack:?}") };
                    Client { calls, session_present: connack.session_present, messages, others, driver }
                }

                async fn plain() -> Client {
                    Client::open(|_| {}).await
                }

                async fn other(&mut self) -> Packet {
                    timeout(PATIENCE, self.others.recv()).await.expect("in time").expect("connected")
                }

                async fn subscribe(&mut self, filters: &[(&str, usize)]) {
                    let filters = filters.iter().map(|(filter, qos)| <$filter>::new(filter.to_string(), QOS[*qos]));
                    self.calls.subscribe_many(filters).await.expect("a request");
                    let packet = self.other().await;
                    assert!(matches!(packet, Packet::SubAck(_)), "{packet:?}");
                }

                /// Publishes and waits for the last acknowledgement.
                async fn publish(&mut self, topic: &str, qos: usize, retain: bool, payload: impl Into<Vec<u8>>) {
                    self.calls.publish(topic, QOS[qos], retain, payload.into()).await.expect("a request");
                    loop {
                        if qos == 0 {
                            return;
                        }
                        match self.other().await {
                            Packet::PubAck(_) if qos == 1 => return,
                            Packet::PubComp(_) if qos == 2 => return,
                            Packet::PubRec(_) => {}
                            packet => panic!("an acknowledgement, got {packet:?}"),
                        }
                    }
                }

                async fn message(&mut self) -> Message {
                    timeout(PATIENCE, self.messages.recv()).await.expect("in time").expect("connected")
                }

                async fn nothing(&mut self) {
                    let late = timeout(std::time::Duration::from_millis(300), self.messages.recv()).await;
                    assert!(late.is_err(), "unexpected {late:?}");
                }

                async fn close(self) {
                    self.calls.disconnect().await.expect("a request");
                    timeout(PATIENCE, self.driver).await.expect("closed in time").expect("no panic");
                }

                /// Closes the socket without DISCONNECT.
                async fn drop_connection(self) {
                    self.driver.abort();
                    let _ = self.driver.await;
                }
            }

            async fn several_filters_at_every_qos() {
                let base = unique("t");
                let (mut subscriber, mut publisher) = (Client::plain().await, Client::plain().await);
                let filters = [format!("{base}/a"), format!("{base}/+/b"), format!("{base}/c/#")];
                subscriber.subscribe(&[(&filters[0], 0), (&filters[1], 1), (&filters[2], 2)]).await;
                let mut sent = Vec::new();
                for qos in 0..3 {
                    for (topic, most) in [("a", 0), ("x/b", 1), ("c/d", 2)] {
                        let topic = format!("{base}/{topic}");
                        publisher.publish(&topic, qos, false, qos.to_string()).await;
                        sent.push((topic, qos.to_string(), qos.min(most) as u8));
                    }
                }
                let mut arrived = Vec::new();
                for _ in 0..9 {
                    let message = subscriber.message().await;
                    arrived.push((message.topic.clone(), message.text(), message.qos));
                }
                arrived.sort();
                sent.sort();
                assert_eq!(arrived, sent);
                subscriber.calls.unsubscribe(&filters[2]).await.expect("a request");
                while !matches!(subscriber.other().await, Packet::UnsubAck(_)) {}
                publisher.publish(&format!("{base}/c/d"), 1, false, "late").await;
                subscriber.nothing().await;
                publisher.close().await;
                subscriber.close().await;
            }

            async fn a_megabyte() {
                let topic = unique("t");
                let (mut subscriber, mut publisher) = (Client::plain().await, Client::plain().await);
                subscriber.subscribe(&[(&topic, 2)]).await;
                for qos in 0..3 {
                    publisher.publish(&topic, qos, false, megabyte()).await;
                    assert!(subscriber.message().await.payload == megabyte(), "QoS {qos}");
                }
                publisher.close().await;
                subscriber.close().await;
            }

            async fn resume_with_queued_messages() {
                let (topic, id) = (unique("t"), unique("r"));
                let keep = |options: &mut MqttOptions| {
                    options.set_client_id(id.clone());
                    let keep: fn(&mut MqttOptions) = $keep;
                    keep(options);
                };
                let mut first = Client::open(&keep).await;
                first.subscribe(&[(&topic, 2)]).await;
                first.close().await;
                let mut publisher = Client::plain().await;
                for number in 0..20 {
                    publisher.publish(&topic, 2, false, number.to_string()).await;
                }
                let mut again = Client::open(&keep).await;
                assert!(again.session_present);
                for number in 0..20 {
                    assert_eq!(again.message().await.text(), number.to_string());
                }
                again.close().await;
                publisher.close().await;
            }

            async fn retained_message_for_newcomers() {
                let topic = unique("t");
                let (mut publisher, mut subscriber) = (Client::plain().await, Client::plain().await);
                publisher.publish(&topic, 1, true, "kept").await;
                subscriber.subscribe(&[(&topic, 1)]).await;
                let message = subscriber.message().await;
                assert!(message.retain && message.text() == "kept", "{message:?}");
                publisher.publish(&topic, 1, true, "").await;
                assert!(subscriber.message().await.payload.is_empty());
                let mut late = Client::plain().await;
                late.subscribe(&[(&topic, 1)]).await;
                late.nothing().await;
                for client in [publisher, subscriber, late] {
                    client.close().await;
                }
            }

            async fn will_after_a_lost_connection() {
                let topic = unique("t");
                let mut subscriber = Client::plain().await;
                subscriber.subscribe(&[(&topic, 1)]).await;
                let will = will(&topic);
                Client::open(|options| {
                    options.set_last_will(will);
                })
                .await
                .drop_connection()
                .await;
                assert_eq!(subscriber.message().await.text(), "lost");
                subscriber.close().await;
            }

            async fn shared_subscription_divides() {
                let topic = unique("t");
                let (mut one, mut two) = (Client::plain().await, Client::plain().await);
                let shared = format!("$share/g/{topic}");
                one.subscribe(&[(&shared, 1)]).await;
                two.subscribe(&[(&shared, 1)]).await;
                let mut publisher = Client::plain().await;
                for number in 0..40 {
                    publisher.publish(&topic, 1, false, number.to_string()).await;
                }
                let mut arrived = Vec::new();
                while arrived.len() < 40 {
                    let next = async {
                        tokio::select! {
                            message = one.messages.recv() => message,
                            message = two.messages.recv() => message,
                        }
                    };
                    let message = timeout(PATIENCE, next).await.expect("in time").expect("connected");
                    arrived.push(message.text().parse::<u32>().expect("a number"));
                }
                arrived.sort_unstable();
                assert_eq!(arrived, (0..40).collect::<Vec<_>>());
                for client in [one, two, publisher] {
                    client.close().await;
                }
            }

            pub(super) type Scenario = (&'static str, Pin<Box<dyn Future<Output = ()> + Send>>);

            pub(super) const TITLE: &str = $title;

            pub(super) fn all() -> Vec<Scenario> {
                vec![
                    ("several filters at every qos", Box::pin(several_filters_at_every_qos())),
                    ("a megabyte", Box::pin(a_megabyte())),
                    ("resume with queued messages", Box::pin(resume_with_queued_messages())),
                    ("retained message for newcomers", Box::pin(retained_message_for_newcomers())),
                    ("will after a lost connection", Box::pin(will_after_a_lost_connection())),
                    ("shared subscription divides", Box::pin(shared_subscription_divides())),
                ]
            }

            fn will(topic: &str) -> LastWill {
                super::wills::$module(topic)
            }
        }
    };
}

mod wills {
    pub fn v311(topic: &str) -> rumqttc::LastWill {
        rumqttc::LastWill::new(topic, "lost", rumqttc::QoS::AtLeastOnce, false)
    }

    pub fn v5(topic: &str) -> rumqttc::v5::mqttbytes::v5::LastWill {
        let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
        rumqttc::v5::mqttbytes::v5::LastWill::new(topic, "lost", qos, false, None)
    }
}

scenarios!(
    v311,
    "3.1.1",
    rumqttc,
    rumqttc::mqttbytes::v4,
    rumqttc::SubscribeFilter,
    |options| {
        options.set_clean_session(false);
    },
    |options| {
        options.set_max_packet_size(2 << 20, 2 << 20);
    }
);

scenarios!(
    v5,
    "5.0",
    rumqttc::v5,
    rumqttc::v5::mqttbytes::v5,
    rumqttc::v5::mqttbytes::v5::Filter,
    |options| {
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(300));
    },
    |options| {
        options.set_max_packet_size(Some(2 << 20));
    }
);

/// What only MQTT 5 has.
mod properties {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties, SubscribeProperties};
    use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
    use tokio::time::timeout;

    use super::{PATIENCE, target, unique};

    /// The next packet that is chosen.
    async fn next<T>(events: &mut EventLoop, mut choose: impl FnMut(Packet) -> Option<T>) -> T {
        let chosen = async {
            loop {
                if let Event::Incoming(packet) = events.poll().await.expect("connected")
                    && let Some(chosen) = choose(packet)
                {
                    return chosen;
                }
            }
        };
        timeout(PATIENCE, chosen).await.expect("in time")
    }

    pub async fn arrive_unchanged() {
        let (host, port) = target();
        let (client, mut events) = AsyncClient::new(MqttOptions::new(unique("r"), host, port), 10);
        let topic = unique("t");
        let identifier = SubscribeProperties { id: Some(300), user_properties: Vec::new() };
        client.subscribe_with_properties(&topic, QoS::AtLeastOnce, identifier).await.expect("a request");
        next(&mut events, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
        let sent = PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(60),
            response_topic: Some(format!("{topic}/answer")),
            correlation_data: Some(vec![0, 1, 255].into()),
            user_properties: vec![("a".into(), "1".into()), ("b".into(), "2".into()), ("a".into(), "3".into())],
            content_type: Some("text/plain".into()),
            ..PublishProperties::default()
        };
        client
            .publish_with_properties(&topic, QoS::AtLeastOnce, false, "x", sent.clone())
            .await
            .expect("a request");
        let mut got = next(&mut events, |packet| match packet {
            Packet::Publish(publish) => publish.properties,
            _ => None,
        })
        .await;
        assert_eq!(got.subscription_identifiers, [300]);
        got.subscription_identifiers.clear();
        // A second may have begun.
        assert!(matches!(got.message_expiry_interval, Some(59..=60)), "{got:?}");
        got.message_expiry_interval = Some(60);
        assert_eq!(got, sent);
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut failed = 0;
    let mut of_5 = v5::all();
    of_5.push(("properties arrive unchanged", Box::pin(properties::arrive_unchanged())));
    let versions = [(v311::TITLE, v311::all()), (v5::TITLE, of_5)];
    for (version, scenarios) in versions {
        for (title, scenario) in scenarios {
            // A panic inside is that scenario's failure and leaves the others to run.
            let outcome = runtime.block_on(async { tokio::spawn(scenario).await });
            let word = if outcome.is_ok() { "PASS" } else { "FAIL" };
            failed += u32::from(outcome.is_err());
            println!("{word} rumqttc {version}: {title}");
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
