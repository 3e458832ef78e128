// MQTT.js against a broker, in MQTT 3.1.1 and 5.0. Arguments: host and port.

import assert from 'node:assert/strict'
import mqtt from 'mqtt'

const [host, port] = process.argv.slice(2)
const PATIENCE = 20_000
const MEGABYTE = Buffer.from(Array.from({ length: 1024 * 1024 }, (_, i) => (i * 7) % 251))
let count = 0
const unique = (label) => `${label}${(Date.now() % 1e9).toString(16)}${count++}`

const within = (promise, what) => {
  let timer
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`late: ${what}`)), PATIENCE) })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

class Client {
  static async open(protocolVersion, options = {}) {
    const self = new Client()
    self.arrived = []
    self.waiting = []
    self.mqtt = mqtt.connect({
      host, port: Number(port), protocolVersion, clientId: unique('j'), reconnectPeriod: 0, ...options,
    })
    self.mqtt.on('error', () => {})
    self.mqtt.on('message', (_topic, _payload, packet) => {
      const waiter = self.waiting.shift()
      if (waiter) waiter(packet)
      else self.arrived.push(packet)
    })
    self.connack = await within(new Promise((resolve, reject) => {
      self.mqtt.once('connect', resolve)
      self.mqtt.once('close', () => reject(new Error('closed before CONNACK')))
    }), 'connect')
    return self
  }

  subscribe(filters) { return within(this.mqtt.subscribeAsync(filters), 'subscribe') }
  publish(topic, payload, options = {}) {
    return within(this.mqtt.publishAsync(topic, payload, options), `publish ${topic}`)
  }
  async take(number) {
    const out = []
    while (out.length < number) {
      out.push(this.arrived.shift() ??
        await within(new Promise((resolve) => this.waiting.push(resolve)), `message ${out.length + 1}`))
    }
    return out
  }
  async nothing() {
    await new Promise((resolve) => setTimeout(resolve, 300))
    assert.deepEqual(this.arrived.map((m) => m.topic), [])
  }
  close() { return within(this.mqtt.endAsync(), 'end') }
  drop() { this.mqtt.stream.destroy() }
}

const persistent = (version, clientId) => ({
  clientId, clean: false, ...(version === 5 ? { properties: { sessionExpiryInterval: 300 } } : {}),
})

const scenarios = {
  async 'several filters at every qos'(version) {
    const base = unique('t')
    const [subscriber, publisher] = [await Client.open(version), await Client.open(version)]
    const granted = await subscriber.subscribe({
      [`${base}/a`]: { qos: 0 }, [`${base}/+/b`]: { qos: 1 }, [`${base}/c/#`]: { qos: 2 },
    })
    assert.deepEqual(granted.map((g) => g.qos), [0, 1, 2])
    const most = { [`${base}/a`]: 0, [`${base}/x/b`]: 1, [`${base}/c/d`]: 2 }
    const sent = []
    for (const qos of [0, 1, 2]) {
      for (const [topic, limit] of Object.entries(most)) {
        await publisher.publish(topic, String(qos), { qos })
        sent.push(`${topic} ${qos} ${Math.min(qos, limit)}`)
      }
    }
    const arrived = (await subscriber.take(9)).map((m) => `${m.topic} ${m.payload} ${m.qos}`)
    assert.deepEqual(arrived.sort(), sent.sort())
    await publisher.close()
    await subscriber.close()
  },

  async 'a megabyte'(version) {
    const topic = unique('t')
    const [subscriber, publisher] = [await Client.open(version), await Client.open(version)]
    await subscriber.subscribe({ [topic]: { qos: 2 } })
    for (const qos of [0, 1, 2]) {
      await publisher.publish(topic, MEGABYTE, { qos })
      const [message] = await subscriber.take(1)
      assert.ok(MEGABYTE.equals(message.payload))
    }
    await publisher.close()
    await subscriber.close()
  },

  async 'unsubscribe ends delivery'(version) {
    const base = unique('t')
    const client = await Client.open(version)
    await client.subscribe({ [`${base}/a`]: { qos: 1 }, [`${base}/b`]: { qos: 1 } })
    await within(client.mqtt.unsubscribeAsync(`${base}/a`), 'unsubscribe')
    await client.publish(`${base}/a`, 'no', { qos: 1 })
    await client.publish(`${base}/b`, 'yes', { qos: 1 })
    const [message] = await client.take(1)
    assert.equal(String(message.payload), 'yes')
    await client.nothing()
    await client.close()
  },

  async 'resume with queued messages'(version) {
    const [topic, clientId] = [unique('t'), unique('j')]
    const first = await Client.open(version, persistent(version, clientId))
    await first.subscribe({ [topic]: { qos: 2 } })
    await first.close()
    const publisher = await Client.open(version)
    for (let number = 0; number < 50; number++) await publisher.publish(topic, String(number), { qos: 1 + number % 2 })
    const again = await Client.open(version, persistent(version, clientId))
    assert.equal(again.connack.sessionPresent, true)
    const messages = await again.take(50)
    for (const qos of [1, 2]) {
      const numbers = messages.filter((m) => m.qos === qos).map((m) => Number(m.payload))
      assert.deepEqual(numbers, Array.from({ length: 25 }, (_, i) => 2 * i + qos - 1))
    }
    await again.close()
    await (await Client.open(version, { clientId })).close()
    await publisher.close()
  },

  async 'retained message for newcomers'(version) {
    const topic = unique('t')
    const [publisher, subscriber] = [await Client.open(version), await Client.open(version)]
    await publisher.publish(topic, 'kept', { qos: 1, retain: true })
    await subscriber.subscribe({ [topic]: { qos: 1 } })
    const [message] = await subscriber.take(1)
    assert.equal(String(message.payload), 'kept')
    assert.equal(message.retain, true)
    await publisher.publish(topic, '', { qos: 1, retain: true })
    assert.equal((await subscriber.take(1))[0].payload.length, 0)
    const late = await Client.open(version)
    await late.subscribe({ [topic]: { qos: 1 } })
    await late.nothing()
    for (const client of [publisher, subscriber, late]) await client.close()
  },

  async 'will after a lost connection'(version) {
    const topic = unique('t')
    const subscriber = await Client.open(version)
    await subscriber.subscribe({ [topic]: { qos: 1 } })
    const mortal = await Client.open(version, { will: { topic, payload: Buffer.from('lost'), qos: 1 } })
    mortal.drop()
    assert.equal(String((await subscriber.take(1))[0].payload), 'lost')
    await subscriber.close()
  },

  async 'shared subscription divides'(version) {
    const topic = unique('t')
    const members = [await Client.open(version), await Client.open(version)]
    for (const member of members) await member.subscribe({ [`$share/g/${topic}`]: { qos: 1 } })
    const publisher = await Client.open(version)
    for (let number = 0; number < 40; number++) await publisher.publish(topic, String(number), { qos: 1 })
    const deadline = Date.now() + PATIENCE
    const all = () => members.flatMap((m) => m.arrived.map((packet) => Number(packet.payload)))
    while (all().length < 40 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20))
    assert.deepEqual(all().sort((a, b) => a - b), Array.from({ length: 40 }, (_, i) => i))
    for (const client of [...members, publisher]) await client.close()
  },

  async 'properties arrive unchanged'(version) {
    if (version !== 5) return 'not in this version'
    const topic = unique('t')
    const [subscriber, publisher] =
      [await Client.open(version, { properties: { topicAliasMaximum: 5 } }), await Client.open(version)]
    await within(subscriber.mqtt.subscribeAsync(topic, { qos: 1, properties: { subscriptionIdentifier: 300 } }), 'sub')
    const properties = {
      payloadFormatIndicator: true, messageExpiryInterval: 60, contentType: 'text/plain', responseTopic: `${topic}/r`,
      correlationData: Buffer.from([0, 255]), userProperties: { a: ['1', '2'], b: '3' },
    }
    for (let round = 0; round < 3; round++) {
      await publisher.publish(topic, 'x', { qos: 1, properties })
      const [{ properties: got }] = await subscriber.take(1)
      assert.equal(got.payloadFormatIndicator, true)
      assert.ok(got.messageExpiryInterval >= 58 && got.messageExpiryInterval <= 60)
      assert.equal(got.contentType, 'text/plain')
      assert.equal(got.responseTopic, `${topic}/r`)
      assert.deepEqual([...got.correlationData], [0, 255])
      assert.deepEqual({ ...got.userProperties }, { a: ['1', '2'], b: '3' })
      assert.equal(Number([].concat(got.subscriptionIdentifier)[0]), 300)
    }
    await publisher.close()
    await subscriber.close()
  },
}

let failed = 0
for (const [version, name] of [[4, '3.1.1'], [5, '5.0']]) {
  for (const [title, scenario] of Object.entries(scenarios)) {
    try {
      if (await scenario(version)) continue
      console.log(`PASS MQTT.js ${name}: ${title}`)
    } catch (error) {
      failed += 1
      console.error(error)
      console.log(`FAIL MQTT.js ${name}: ${title}`)
    }
  }
}
process.exit(failed ? 1 : 0)
