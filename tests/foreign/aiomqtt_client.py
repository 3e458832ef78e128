"""aiomqtt against a broker, in MQTT 3.1.1 and 5.0. Arguments: host and port."""

import asyncio
import itertools
import sys
import time

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from report import MEGABYTE, Report

HOST, PORT = sys.argv[1], int(sys.argv[2])
PATIENCE = 20
COUNT = itertools.count()
V311, V5 = aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5


def unique(label):
    return f"{label}{time.monotonic_ns() % 10**9:x}{next(COUNT)}"


def properties(kind, **values):
    out = Properties(kind)
    for name, value in values.items():
        setattr(out, name, value)
    return out


def client(version, identifier=None, keep=False, will=None):
    more = {}
    if version == V5:
        more["clean_start"] = not keep
        if keep:
            more["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=300)
    else:
        more["clean_session"] = not keep
    return aiomqtt.Client(HOST, PORT, identifier=identifier or unique("a"), protocol=version, will=will, **more)


async def take(subscriber, count):
    out = []
    async with asyncio.timeout(PATIENCE):
        async for message in subscriber.messages:
            out.append(message)
            if len(out) == count:
                return out


async def nothing(subscriber):
    try:
        async with asyncio.timeout(0.3):
            async for message in subscriber.messages:
                raise AssertionError(f"unexpected {message.topic}")
    except TimeoutError:
        pass


async def filters_and_every_qos(version):
    base = unique("t")
    async with client(version) as subscriber, client(version) as publisher:
        codes = await subscriber.subscribe([(f"{base}/a", 0), (f"{base}/+/b", 1), (f"{base}/c/#", 2)])
        assert [getattr(c, "value", c) for c in codes] == [0, 1, 2], codes
        most = {f"{base}/a": 0, f"{base}/x/b": 1, f"{base}/c/d": 2}
        for qos in (0, 1, 2):
            for topic in most:
                await publisher.publish(topic, str(qos), qos)
        arrived = sorted((str(m.topic), int(m.payload), m.qos) for m in await take(subscriber, 9))
        assert arrived == sorted((t, q, min(q, most[t])) for t in most for q in (0, 1, 2)), arrived
        await subscriber.unsubscribe(f"{base}/c/#")
        await publisher.publish(f"{base}/c/d", "late", 2)
        await nothing(subscriber)


async def a_megabyte(version):
    topic = unique("t")
    async with client(version) as subscriber, client(version) as publisher:
        await subscriber.subscribe(topic, 2)
        for qos in (0, 1, 2):
            await publisher.publish(topic, MEGABYTE, qos)
            assert (await take(subscriber, 1))[0].payload == MEGABYTE


async def resume_with_queued_messages(version):
    topic, identifier = unique("t"), unique("a")
    async with client(version, identifier, keep=True) as subscriber:
        await subscriber.subscribe(topic, 2)
    async with client(version) as publisher:
        for number in range(20):
            await publisher.publish(topic, str(number), 2)
    async with client(version, identifier, keep=True) as subscriber:
        assert [int(m.payload) for m in await take(subscriber, 20)] == list(range(20))
    async with client(version, identifier):
        pass


async def retained_and_will(version):
    topic = unique("t")
    async with client(version) as publisher:
        await publisher.publish(topic, "kept", 1, retain=True)
        async with client(version) as subscriber:
            await subscriber.subscribe(topic, 1)
            message = (await take(subscriber, 1))[0]
            assert message.payload == b"kept" and message.retain
            await publisher.publish(topic, "", 1, retain=True)
            assert (await take(subscriber, 1))[0].payload == b""
            mortal = client(version, will=aiomqtt.Will(topic, "lost", 1))
            await mortal.__aenter__()
            mortal._client._sock_close()
            assert (await take(subscriber, 1))[0].payload == b"lost"
            try:
                await mortal.__aexit__(None, None, None)
            except aiomqtt.MqttError:
                pass


async def shared_and_properties(version):
    topic = unique("t")
    async with client(version) as one, client(version) as two, client(version) as publisher:
        for member in (one, two):
            await member.subscribe(f"$share/g/{topic}", 1)
        user = [("k", "1"), ("k", "2")]
        for number in range(20):
            await publisher.publish(
                topic, str(number), 1, properties=properties(PacketTypes.PUBLISH, UserProperty=user))

        async def drain(member):
            out = []
            try:
                async with asyncio.timeout(1):
                    async for message in member.messages:
                        out.append(message)
            except TimeoutError:
                return out

        got = [m for part in await asyncio.gather(drain(one), drain(two)) for m in part]
        assert sorted(int(m.payload) for m in got) == list(range(20)), len(got)
        assert all(m.properties.UserProperty == user for m in got)


def main():
    report = Report("aiomqtt")
    for version, name in ((V311, "3.1.1"), (V5, "5.0")):
        scenarios = [filters_and_every_qos, a_megabyte, resume_with_queued_messages, retained_and_will]
        for scenario in scenarios + ([shared_and_properties] if version == V5 else []):
            def run(scenario=scenario, version=version):
                asyncio.run(asyncio.wait_for(scenario(version), 60))
            run.__name__ = scenario.__name__
            report.run(name, run)
    report.end()


if __name__ == "__main__":
    main()
