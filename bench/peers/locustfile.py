"""An independent generator, to cross-check `loadgen` on the same broker at the same rate: Locust (PyPI) with paho.

Each user subscribes to a topic of its own and publishes to it at a constant pace; a message carries the time at which
it was sent. What was sent in the measured time and received is counted, with its latency, and written to CROSS_OUT.
`scripts/cross-check` runs this and compares.
"""
import json
import os
import struct
import time

from locust import events, task
from locust.contrib.mqtt import MqttUser

QOS = int(os.environ["CROSS_QOS"])
PER_USER = float(os.environ["CROSS_PER_USER"])
SECONDS = float(os.environ["CROSS_SECONDS"])
SETTLE_S = float(os.environ["CROSS_SETTLE"])
begin = time.time()
latencies = []


class Pair(MqttUser):
    host = "127.0.0.1"
    port = int(os.environ["CROSS_PORT"])

    def wait_time(self):
        """Until the next message is due. Locust's own pacing loses what a late wake-up costs; this catches up."""
        now = time.time()
        self.due = getattr(self, "due", now) + 1 / PER_USER
        return max(0, self.due - now)

    def on_start(self):
        self.topic = f"cross-check/{self.client.client_id}"
        self.client.on_message = self.received
        for _ in range(500):
            if self.client.is_connected():
                break
            time.sleep(0.01)
        self.client.subscribe(self.topic, QOS)
        time.sleep(1)

    def received(self, client, userdata, message):
        (sent,) = struct.unpack("d", message.payload[:8])
        if SETTLE_S <= sent - begin < SETTLE_S + SECONDS:
            latencies.append(time.time() - sent)

    @task
    def publish(self):
        self.client.publish(self.topic, struct.pack("d", time.time()) + bytes(56), QOS)


@events.test_stop.add_listener
def write(**_):
    with open(os.environ["CROSS_OUT"], "w") as file:
        json.dump({"received": len(latencies), "latencies_ms": sorted(1000 * s for s in latencies)}, file)
