/** Notifies of changes of Redis keys by pub/sub. */
import { DeadlineError, withDeadline } from '../deadline.ts'
import type { RedisConnection, RedisSubscriber } from '../redis-client.ts'

/**
 * Watches keys on one connection, opened by the first watch. A change of a key must be published to the
 * channel that has its name.
 */
export interface RedisWatcher {
  /**
   * Calls `onChange` when a message arrives on the key's channel, when the key expires, and when
   * messages may have been missed.
   *
   * @returns a function that stops it, once the subscription is active
   * @throws if Redis does not respond
   */
  watch(name: string, onChange: () => void): Promise<() => void>
}

/** A connection that is only listened to looks the same when its server is gone: it is checked so often. */
const HEARTBEAT_MS = 1_000

/** The longest delay of setTimeout: beyond it, the timer fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1

interface Channel {
  listeners: Set<() => void>
  subscribed: Promise<unknown>
  expiryTimer: NodeJS.Timeout | undefined
}

/** Creates a watcher with the options and the key prefix of a connection; it closes with it. */
export function createRedisWatcher(redis: RedisConnection): RedisWatcher {
  const prefix = redis.options.keyPrefix ?? ''
  const channels = new Map<string, Channel>()
  let subscriber: RedisSubscriber | undefined
  let connecting: Promise<void> | undefined
  let heartbeat: NodeJS.Timeout | undefined

  function getSubscriber(): RedisSubscriber {
    if (subscriber) return subscriber
    subscriber = redis.duplicate({ autoResubscribe: false, lazyConnect: false })
    subscriber.on('error', () => {}) // the other connection reports them
    subscriber.on('message', (channel: string) => notify(channel.slice(prefix.length)))
    subscriber.on('ready', () => void resubscribe())
    redis.once('end', () => subscriber?.disconnect())
    return subscriber
  }

  /** After a lost connection: what was published in between is lost, too. */
  async function resubscribe(): Promise<void> {
    const names = [...channels.keys()]
    if (names.length === 0) return
    try {
      await subscriber?.subscribe(...names.map((name) => prefix + name))
    } catch {
      subscriber?.disconnect(true) // reconnects, and calls this again
    }
    for (const name of names) notify(name)
  }

  /** Replaces a connection that does not respond; the new one notifies all listeners. */
  async function checkConnection(): Promise<void> {
    if (channels.size === 0) {
      clearInterval(heartbeat)
      heartbeat = undefined
      return
    }
    if (subscriber?.status !== 'ready') return
    const { stream } = subscriber
    const reply = withDeadline(subscriber.ping(), HEARTBEAT_MS, 'Redis did not respond')
    await reply.catch((error) => {
      if (error instanceof DeadlineError) stream.destroy() // a refusal is a response
    })
  }

  function notify(name: string): void {
    for (const listener of channels.get(name)?.listeners ?? []) listener()
  }

  /** No message is published when the lease of a dead owner ends: a timer replaces it. */
  async function watchExpiry(name: string, channel: Channel): Promise<void> {
    const remainingMs = await redis.pttl(name).catch(() => -1)
    if (channels.get(name) !== channel || remainingMs < 0) return
    channel.expiryTimer = setTimeout(
      () => {
        notify(name)
        void watchExpiry(name, channel)
      },
      Math.min(remainingMs + 1, MAX_TIMER_MS),
    )
  }

  function openChannel(name: string): Channel {
    const existing = channels.get(name)
    if (existing) return existing
    const channel: Channel = {
      listeners: new Set(),
      subscribed: subscribe(name),
      expiryTimer: undefined,
    }
    channels.set(name, channel)
    heartbeat ??= setInterval(checkConnection, HEARTBEAT_MS).unref()
    channel.subscribed.then(
      () => watchExpiry(name, channel),
      () => {},
    )
    return channel
  }

  async function subscribe(name: string): Promise<void> {
    const client = getSubscriber()
    if (client.status !== 'ready') {
      connecting ??= waitUntilReady(client).finally(() => {
        connecting = undefined
      })
      await connecting
    }
    await client.subscribe(prefix + name)
  }

  return {
    async watch(name, onChange) {
      const channel = openChannel(name)
      channel.listeners.add(onChange)
      const stop = () => {
        channel.listeners.delete(onChange)
        if (channel.listeners.size > 0 || channels.get(name) !== channel) return
        channels.delete(name)
        clearTimeout(channel.expiryTimer)
        subscriber?.unsubscribe(prefix + name).catch(() => {})
      }
      try {
        await channel.subscribed
        return stop
      } catch (error) {
        stop()
        throw error
      }
    },
  }
}

/** Resolves when the connection is ready; rejects when its attempt to connect has failed. */
function waitUntilReady(client: RedisSubscriber): Promise<void> {
  return new Promise((resolve, reject) => {
    if (client.status === 'end') return reject(new Error('the connection has ended'))
    const onReady = () => {
      client.off('close', onClose)
      resolve()
    }
    const onClose = () => {
      client.off('ready', onReady)
      reject(new Error('Redis does not respond'))
    }
    client.once('ready', onReady)
    client.once('close', onClose)
  })
}
