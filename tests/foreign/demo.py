"""The flow that scripts/demo shows, with paho-mqtt as the client. Argument: the broker's binary."""

import queue
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from broker import Broker

PATIENCE = 15


class Client:
    """A paho client whose events are taken from queues, each with a deadline."""

    def __init__(self, broker, client_id):
        self.id = client_id
        self.messages, self.events = queue.Queue(), queue.Queue()
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
        self.paho.on_connect = lambda *a: self.events.put(("connected", a[3].value))
        self.paho.on_disconnect = lambda *a: self.events.put(("disconnected", a[3].value))
        self.paho.on_subscribe = lambda *a: self.events.put(("subscribed", [code.value for code in a[3]]))
        self.paho.on_unsubscribe = lambda *a: self.events.put(("unsubscribed", [code.value for code in a[3]]))
        self.paho.on_message = lambda _client, _data, message: self.messages.put(message)
        self.paho.connect(broker.host, broker.port, keepalive=30)
        self.paho.loop_start()
        self.expect("connected", 0)

    def expect(self, *event):
        got = self.events.get(timeout=PATIENCE)
        assert got == event, f"{self.id}: expected {event}, got {got}"

    def publish(self, topic, payload, qos):
        self.paho.publish(topic, payload, qos).wait_for_publish(timeout=PATIENCE)

    def disconnect(self):
        self.paho.disconnect()
        self.expect("disconnected", 0)
        self.paho.loop_stop()


class Counts:
    """Follows `$SYS` counts; part of the counts itself."""

    def __init__(self, broker):
        self.client = Client(broker, "demo-counts")
        self.values = {}
        self.client.paho.subscribe([("$SYS/broker/live/#", 0), ("$SYS/broker/shard/+/sessions", 0)])
        self.client.expect("subscribed", [0, 0])

    def follow(self, seconds):
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self.client.messages.get(timeout=left)
            except queue.Empty:
                return
            self.values[message.topic.removeprefix("$SYS/broker/")] = int(message.payload)

    def settled(self):
        """The values once two refreshes have changed nothing."""
        for _ in range(15):
            before = dict(self.values)
            self.follow(2.2)
            if before and before == self.values:
                return before
        raise AssertionError(f"the counts never settle: {self.values}")

    def home_of_newcomer(self, before):
        """The shard that has a session more than before."""
        for _ in range(30):
            self.follow(0.5)
            for shard in (0, 1):
                key = f"shard/{shard}/sessions"
                if self.values.get(key, 0) > before.get(key, 0):
                    return shard
        raise AssertionError(f"no shard counts the new session: {before} -> {self.values}")


def main(binary):
    with Broker(binary, 2, ["--sys-interval", "1"]) as broker:
        print(f"broker   pid {broker.process.pid} on {broker.host}:{broker.port}, 2 shards")
        counts = Counts(broker)
        base = counts.settled()
        print("base     " + ", ".join(f"{k.removeprefix('live/')} {v}" for k, v in sorted(base.items())))

        subscriber = Client(broker, "demo-subscriber")
        home = counts.home_of_newcomer(base)
        filters = [("demo/exact", 0), ("demo/+/one", 1), ("demo/deep/#", 2)]
        subscriber.paho.subscribe(filters)
        subscriber.expect("subscribed", [0, 1, 2])
        print(f"client   {subscriber.id} at home on shard {home}, one SUBSCRIBE: {filters} granted 0, 1, 2")

        publisher = None
        for attempt in range(32):
            before = counts.settled() if attempt == 0 else dict(counts.values)
            candidate = Client(broker, f"demo-publisher-{attempt}")
            elsewhere = counts.home_of_newcomer(before)
            if elsewhere != home:
                publisher = candidate
                break
            candidate.disconnect()
            counts.settled()
        assert publisher, "32 client ids were all at home on one shard"
        print(f"client   {publisher.id} at home on shard {elsewhere}")

        granted = {"demo/exact": 0, "demo/any/one": 1, "demo/deep/er/still": 2, "demo/deep": 2}
        sent = []
        for qos in (0, 1, 2):
            for topic, most in granted.items():
                payload = f"{topic} published at {qos}"
                publisher.publish(topic, payload, qos)
                sent.append((topic, payload, min(qos, most)))
            publisher.publish("demo/elsewhere", "matches nothing", qos)
        arrived = []
        for _ in sent:
            message = subscriber.messages.get(timeout=PATIENCE)
            arrived.append((message.topic, message.payload.decode(), message.qos))
            print(f"arrived  {message.topic:20} at QoS {message.qos}: {message.payload.decode()}")
        assert sorted(arrived) == sorted(sent), f"sent {sent}, arrived {arrived}"
        for topic in granted:
            order = [payload for t, payload, _ in arrived if t == topic]
            assert len(order) == 3, f"{topic}: {order}"

        subscriber.paho.unsubscribe([name for name, _ in filters])
        subscriber.expect("unsubscribed", [0, 0, 0])
        publisher.publish("demo/exact", "after UNSUBSCRIBE", 2)
        time.sleep(0.3)
        assert subscriber.messages.empty(), "a message arrived after UNSUBACK"
        properties = Properties(PacketTypes.DISCONNECT)
        subscriber.paho.disconnect(properties=properties)
        subscriber.expect("disconnected", 0)
        subscriber.paho.loop_stop()
        publisher.disconnect()

        for _ in range(20):
            if counts.values == base:
                break
            counts.follow(0.6)
        assert counts.values == base, f"live objects were {base}, are {counts.values}"
        print("live     all counts are back at their base")
        counts.client.disconnect()
        code = broker.stop()
        assert code == 0, f"the broker's exit code is {code}:\n{''.join(broker.stderr)}"
        print("broker   stopped with exit code 0")


if __name__ == "__main__":
    main(sys.argv[1])
