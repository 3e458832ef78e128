"""paho-mqtt against a broker, in MQTT 3.1, 3.1.1 and 5.0. Arguments: host and port."""

import itertools
import queue
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from report import MEGABYTE, Report

HOST, PORT = sys.argv[1], int(sys.argv[2])
PATIENCE = 20
COUNT = itertools.count()
NAMES = {mqtt.MQTTv31: "3.1", mqtt.MQTTv311: "3.1.1", mqtt.MQTTv5: "5.0"}


def unique(label):
    return f"{label}{time.monotonic_ns() % 10**9:x}{next(COUNT)}"


def properties(kind, **values):
    out = Properties(kind)
    for name, value in values.items():
        setattr(out, name, value)
    return out


class Client:
    def __init__(self, version, client_id=None, clean=True, will=None, expiry=None):
        self.version = version
        self.messages, self.events = queue.Queue(), queue.Queue()
        more = {} if version == mqtt.MQTTv5 else {"clean_session": clean}
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id or unique("p"), protocol=version, **more
        )
        self.paho.on_connect = lambda _c, _u, flags, code, props: self.events.put((flags, code, props))
        self.paho.on_subscribe = lambda _c, _u, _mid, codes, _p: self.events.put([c.value for c in codes])
        self.paho.on_unsubscribe = lambda *_: self.events.put("unsubscribed")
        self.paho.on_disconnect = lambda *_: self.events.put("disconnected")
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        if will:
            self.paho.will_set(**will)
        connect = {}
        if version == mqtt.MQTTv5:
            connect["clean_start"] = clean
            if expiry:
                connect["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry)
        self.paho.connect(HOST, PORT, keepalive=30, **connect)
        self.paho.loop_start()
        self.flags, code, self.connack = self.events.get(timeout=PATIENCE)
        assert not code.is_failure, code

    def subscribe(self, filters):
        """Filters as (text, qos or SubscribeOptions) in one packet; returns the codes."""
        if self.version == mqtt.MQTTv5:
            filters = [(f, o if isinstance(o, SubscribeOptions) else SubscribeOptions(qos=o)) for f, o in filters]
        self.paho.subscribe(filters)
        return self.events.get(timeout=PATIENCE)

    def publish(self, topic, payload, qos=0, retain=False, props=None):
        more = {"properties": props} if props else {}
        self.paho.publish(topic, payload, qos, retain, **more).wait_for_publish(timeout=PATIENCE)

    def take(self, count):
        return [self.messages.get(timeout=PATIENCE) for _ in range(count)]

    def nothing(self):
        try:
            message = self.messages.get(timeout=0.3)
        except queue.Empty:
            return
        raise AssertionError(f"unexpected {message.topic}: {message.payload[:40]}")

    def close(self):
        self.paho.disconnect()
        assert self.events.get(timeout=PATIENCE) == "disconnected"
        self.paho.loop_stop()

    def drop(self):
        """Closes the socket without DISCONNECT."""
        self.paho.loop_stop()
        self.paho._sock_close()


def several_filters_at_every_qos(version):
    base = unique("t")
    subscriber, publisher = Client(version), Client(version)
    assert subscriber.subscribe([(f"{base}/a", 0), (f"{base}/+/b", 1), (f"{base}/c/#", 2)]) == [0, 1, 2]
    most = {f"{base}/a": 0, f"{base}/x/b": 1, f"{base}/c": 2, f"{base}/c/d/e": 2}
    for qos in (0, 1, 2):
        for topic in most:
            publisher.publish(topic, f"{qos}", qos)
    arrived = sorted((m.topic, int(m.payload), m.qos) for m in subscriber.take(12))
    assert arrived == sorted((t, q, min(q, most[t])) for t in most for q in (0, 1, 2)), arrived
    publisher.close()
    subscriber.close()


def thousands_in_order(version):
    topic = unique("t")
    subscriber, publisher = Client(version), Client(version)
    subscriber.subscribe([(topic, 2)])
    for qos in (0, 1, 2):
        # Few enough at a time for the subscriber's queue, whatever its speed.
        for start in range(0, 2000, 500):
            for number in range(start, start + 500):
                last = publisher.paho.publish(topic, str(number), qos)
            last.wait_for_publish(timeout=PATIENCE)
            got = [int(m.payload) for m in subscriber.take(500)]
            assert got == list(range(start, start + 500)), f"QoS {qos}: order or loss from {start}: {got[:5]}.."
    subscriber.nothing()
    publisher.close()
    subscriber.close()


def payloads_up_to_a_megabyte(version):
    topic = unique("t")
    subscriber, publisher = Client(version), Client(version)
    subscriber.subscribe([(topic, 2)])
    sizes = [0, 1, 127, 128, 16383, 16384, 65536, 1024 * 1024]
    for qos in (0, 1, 2):
        for size in sizes:
            publisher.publish(topic, MEGABYTE[:size], qos)
            (message,) = subscriber.take(1)
            assert message.payload == MEGABYTE[:size], f"{size} bytes at QoS {qos}"
    publisher.close()
    subscriber.close()


def unsubscribe_ends_delivery(version):
    base = unique("t")
    client = Client(version)
    client.subscribe([(f"{base}/a", 1), (f"{base}/b", 1)])
    client.paho.unsubscribe([f"{base}/a", f"{base}/never"])
    assert client.events.get(timeout=PATIENCE) == "unsubscribed"
    client.publish(f"{base}/a", "no", 1)
    client.publish(f"{base}/b", "yes", 1)
    assert client.take(1)[0].payload == b"yes"
    client.nothing()
    client.close()


def resume_with_queued_messages(version):
    topic, client_id = unique("t"), unique("p")
    subscriber = Client(version, client_id, clean=False, expiry=300)
    assert not subscriber.flags.session_present
    subscriber.subscribe([(topic, 2)])
    subscriber.close()
    publisher = Client(version)
    for number in range(100):
        publisher.publish(topic, str(number), 1 + number % 2)
    subscriber = Client(version, client_id, clean=False, expiry=300)
    assert subscriber.flags.session_present == (version != mqtt.MQTTv31)
    messages = subscriber.take(100)
    for qos in (1, 2):
        assert [int(m.payload) for m in messages if m.qos == qos] == list(range(qos - 1, 100, 2))
    subscriber.nothing()
    subscriber.close()
    assert not Client(version, client_id).flags.session_present
    publisher.close()


def retained_message_for_newcomers(version):
    base = unique("t")
    publisher = Client(version)
    publisher.publish(f"{base}/a", "first", 1, retain=True)
    publisher.publish(f"{base}/a", "last", 2, retain=True)
    publisher.publish(f"{base}/b", "gone", 1, retain=True)
    publisher.publish(f"{base}/b", "", 1, retain=True)
    publisher.publish(f"{base}/c", "never stored", 1)
    subscriber = Client(version)
    subscriber.subscribe([(f"{base}/#", 1)])
    (message,) = subscriber.take(1)
    assert (message.topic, message.payload, message.qos, message.retain) == (f"{base}/a", b"last", 1, True)
    publisher.publish(f"{base}/a", "live", 1, retain=True)
    (message,) = subscriber.take(1)
    assert (message.payload, message.retain) == (b"live", False)
    subscriber.nothing()
    publisher.publish(f"{base}/a", "", 0, retain=True)
    subscriber.close()
    publisher.close()


def will_after_a_lost_connection(version):
    topic = unique("t")
    subscriber = Client(version)
    subscriber.subscribe([(topic, 1)])
    Client(version, will={"topic": topic, "payload": "lost", "qos": 1}).drop()
    assert subscriber.take(1)[0].payload == b"lost"
    Client(version, will={"topic": topic, "payload": "never", "qos": 1}).close()
    subscriber.nothing()
    subscriber.close()


def shared_subscription_divides(version):
    topic = unique("t")
    members = [Client(version) for _ in range(3)]
    for member in members:
        assert member.subscribe([(f"$share/g/{topic}", 1)]) == [1]
    publisher = Client(version)
    for number in range(90):
        publisher.publish(topic, str(number), 1)
    got, deadline = [], time.monotonic() + PATIENCE
    while len(got) < 90 and time.monotonic() < deadline:
        for member in members:
            try:
                got.append(int(member.messages.get(timeout=0.02).payload))
            except queue.Empty:
                pass
    assert sorted(got) == list(range(90)), f"{len(got)} arrived"
    for client in [*members, publisher]:
        client.nothing()
        client.close()


def properties_arrive_unchanged(version):
    topic = unique("t")
    subscriber, publisher = Client(version), Client(version)
    subscriber.paho.subscribe(topic, options=SubscribeOptions(qos=1),
                              properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=77))
    assert subscriber.events.get(timeout=PATIENCE) == [1]
    user = [("a", "1"), ("b", "2"), ("a", "3"), ("ü", "日本")]
    publisher.publish(topic, "x", 1, props=properties(
        PacketTypes.PUBLISH, PayloadFormatIndicator=1, MessageExpiryInterval=60, ContentType="text/plain",
        ResponseTopic=f"{topic}/answer", CorrelationData=b"\x00\xff", UserProperty=user))
    got = subscriber.take(1)[0].properties
    assert got.PayloadFormatIndicator == 1 and 58 <= got.MessageExpiryInterval <= 60
    assert got.ContentType == "text/plain" and got.ResponseTopic == f"{topic}/answer"
    assert got.CorrelationData == b"\x00\xff" and got.UserProperty == user
    assert got.SubscriptionIdentifier == [77]
    publisher.close()
    subscriber.close()


def no_local_and_retain_options(version):
    topic = unique("t")
    client, other = Client(version), Client(version)
    client.subscribe([(topic, SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True, retainHandling=2))])
    client.publish(topic, "own", 1)
    client.nothing()
    other.publish(topic, "kept", 1, retain=True)
    assert client.take(1)[0].retain
    other.subscribe([(topic, SubscribeOptions(qos=1, retainHandling=2))])
    other.nothing()
    other.publish(topic, "", 1, retain=True)
    client.close()
    other.close()


def takeover_ends_the_older_connection(version):
    client_id = unique("p")
    older = Client(version, client_id)
    older.paho.reconnect_delay_set(60, 60)
    newer = Client(version, client_id)
    assert older.events.get(timeout=PATIENCE) == "disconnected"
    older.paho.disconnect()
    threading.Thread(target=older.paho.loop_stop, daemon=True).start()
    newer.publish(unique("t"), "alive", 1)
    newer.close()


def main():
    report = Report("paho-mqtt")
    all_versions = [
        several_filters_at_every_qos, thousands_in_order, payloads_up_to_a_megabyte, unsubscribe_ends_delivery,
        resume_with_queued_messages, retained_message_for_newcomers, will_after_a_lost_connection,
        shared_subscription_divides, takeover_ends_the_older_connection,
    ]
    for version, name in NAMES.items():
        for scenario in all_versions:
            report.run(name, scenario, version)
    for scenario in (properties_arrive_unchanged, no_local_and_retain_options):
        report.run("5.0", scenario, mqtt.MQTTv5)
    report.end()


if __name__ == "__main__":
    main()
