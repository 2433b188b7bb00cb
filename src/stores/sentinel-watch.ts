/** Leaves a master that the sentinels have replaced. */
import { lookup } from 'node:dns/promises'
import type { Redis } from 'ioredis'
import { createSentinelClient } from './redis-client.ts'
import type { SentinelTarget } from './redis-url.ts'

/** A sentinel that is down is no hurry: one that is up is enough. */
const RECONNECT_DELAY_MS = 1_000

/** Within this time after a switch, all sentinels return the address of the new master. */
const SWITCH_TIME_MS = 10_000

/**
 * Subscribes to the switches of the master at each sentinel. A client that is connected to the former master
 * connects again, to the master that the sentinels then report. This is needed although a demoted master closes
 * its connections: it may be cut off from the sentinels, and still respond here.
 *
 * @returns a function that stops it
 */
export function leaveDemotedMaster(client: Redis, target: SentinelTarget): () => void {
  let demoted = { addresses: [''], until: 0 }

  function leave(): void {
    if (client.status !== 'ready' || performance.now() > demoted.until) return
    const { remoteAddress, remotePort } = client.stream as {
      remoteAddress?: string
      remotePort?: number
    }
    if (demoted.addresses.includes(`${remoteAddress}:${remotePort}`)) client.disconnect(true)
  }

  // For some seconds after a switch, a sentinel may still return the former master.
  client.on('ready', leave)
  const sentinels = target.sentinels.map((sentinel) => {
    const subscriber = createSentinelClient(target, sentinel, {
      maxRetriesPerRequest: null,
      retryStrategy: () => RECONNECT_DELAY_MS,
    })
    subscriber.on('error', () => {}) // if no sentinel responds, the client reports it
    subscriber.on('message', async (_channel, message: string) => {
      // Of the former master; those of the new one follow.
      const [name, host = '', port] = message.split(' ')
      if (name !== target.masterName) return
      const addresses = (await resolveHost(host)).map((address) => `${address}:${port}`)
      demoted = { addresses, until: performance.now() + SWITCH_TIME_MS }
      leave()
    })
    subscriber.subscribe('+switch-master').catch(() => {})
    return subscriber
  })
  return () => {
    for (const sentinel of sentinels) sentinel.disconnect()
  }
}

/** Sentinels with `announce-hostnames` send names; an address resolves to itself. */
async function resolveHost(host: string): Promise<string[]> {
  const found = await lookup(host, { all: true }).catch(() => [])
  return found.map(({ address }) => address)
}
