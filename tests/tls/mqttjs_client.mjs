// MQTT.js over TLS. Arguments: port, CA, and a certificate with its key where the broker wants one.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

let mqtt
try {
  mqtt = createRequire(new URL('../foreign/package.json', import.meta.url))('mqtt')
} catch {
  console.log('the module mqtt is not installed in tests/foreign')
  process.exit(77)
}

const [port, ca, cert, key] = process.argv.slice(2)
const own = cert ? { cert: readFileSync(cert), key: readFileSync(key) } : {}
const late = setTimeout(() => { console.error('late'); process.exit(1) }, 30_000)
const payloads = ['', 'x', 'y'.repeat(1000), 'z'.repeat(300_000)]

for (const protocolVersion of [4, 5]) {
  const client = await mqtt.connectAsync({
    protocol: 'mqtts', host: 'localhost', port: Number(port), ca: readFileSync(ca), ...own, protocolVersion,
    clientId: `js-${protocolVersion}`, reconnectPeriod: 0, family: 4,
  })
  const arrived = []
  let wake = () => {}
  client.on('message', (_topic, payload, packet) => { arrived.push([payload.toString(), packet.qos]); wake() })
  await client.subscribeAsync('js/#', { qos: 2 })
  for (const qos of [0, 1, 2]) {
    for (const payload of payloads) {
      await client.publishAsync('js/tls', payload, { qos })
      while (arrived.length === 0) await new Promise((resolve) => { wake = resolve })
      assert.deepEqual(arrived.shift(), [payload, qos])
    }
  }
  await client.endAsync()
}
clearTimeout(late)
