"""paho-mqtt over TLS. Arguments: port, CA, and a certificate with its key where the broker wants one."""

import queue
import sys

try:
    import paho.mqtt.client as mqtt
except ImportError as error:
    print(error)
    sys.exit(77)

PORT, CA = int(sys.argv[1]), sys.argv[2]
OWN = sys.argv[3:5]
PAYLOADS = [b"", b"x", b"y" * 1000, bytes(i * 7 % 251 for i in range(300_000))]

for version in (mqtt.MQTTv311, mqtt.MQTTv5):
    events, messages = queue.Queue(), queue.Queue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"paho-{version}", protocol=version)
    client.tls_set(CA, *OWN)
    client.on_connect = lambda _c, _u, _f, code, _p: events.put(code)
    client.on_subscribe = lambda *_: events.put("subscribed")
    client.on_message = lambda _c, _u, message: messages.put(message)
    client.connect("127.0.0.1", PORT)
    client.loop_start()
    assert not events.get(timeout=20).is_failure
    client.subscribe("paho/#", qos=2)
    assert events.get(timeout=20) == "subscribed"
    for qos in (0, 1, 2):
        for payload in PAYLOADS:
            client.publish("paho/tls", payload, qos=qos).wait_for_publish(20)
            message = messages.get(timeout=20)
            assert (message.payload, message.qos) == (payload, qos)
    client.disconnect()
    client.loop_stop()
