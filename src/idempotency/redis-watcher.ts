import type { Redis } from 'ioredis'

/**
 * Tells of changes of Redis keys by pub/sub: whoever changes a key publishes to the channel of its
 * name. One connection a process, opened by the first watch.
 */
export interface RedisWatcher {
  /**
   * Calls `onChange` when the key's channel gets a message, when the key expires, and when messages
   * may have been missed.
   *
   * @returns what stops it, once the subscription stands
   * @throws if Redis does not answer
   */
  watch(name: string, onChange: () => void): Promise<() => void>
}

/** What setTimeout can hold: beyond, it fires at once. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1

interface Topic {
  listeners: Set<() => void>
  subscribed: Promise<unknown>
  expiry: NodeJS.Timeout | undefined
}

/** The watcher beside a connection, whose key prefix it heeds and with which it ends. */
export function createRedisWatcher(redis: Redis): RedisWatcher {
  const prefix = redis.options.keyPrefix ?? ''
  const topics = new Map<string, Topic>()
  let subscriber: Redis | undefined
  let connecting: Promise<void> | undefined

  function connection(): Redis {
    if (subscriber) return subscriber
    subscriber = redis.duplicate({ autoResubscribe: false, lazyConnect: false })
    subscriber.on('error', () => {}) // the other connection tells of them
    subscriber.on('message', (channel: string) => notify(channel.slice(prefix.length)))
    subscriber.on('ready', () => void resubscribe())
    redis.once('end', () => subscriber?.disconnect())
    return subscriber
  }

  /** After a loss of the connection: what was published meanwhile is gone. */
  async function resubscribe(): Promise<void> {
    const names = [...topics.keys()]
    if (names.length === 0) return
    try {
      await subscriber?.subscribe(...names.map((name) => prefix + name))
    } catch {
      subscriber?.disconnect(true) // and comes back here when it is ready again
    }
    for (const name of names) notify(name)
  }

  function notify(name: string): void {
    for (const listener of topics.get(name)?.listeners ?? []) listener()
  }

  /** Nobody publishes the end of a dead owner's lease, so it is looked up. */
  async function watchExpiry(name: string, topic: Topic): Promise<void> {
    const remainingMs = await redis.pttl(name).catch(() => -1)
    if (topics.get(name) !== topic || remainingMs < 0) return
    topic.expiry = setTimeout(
      () => {
        notify(name)
        void watchExpiry(name, topic)
      },
      Math.min(remainingMs + 1, MAX_TIMEOUT_MS),
    )
  }

  function open(name: string): Topic {
    const existing = topics.get(name)
    if (existing) return existing
    const topic: Topic = { listeners: new Set(), subscribed: subscribe(name), expiry: undefined }
    topics.set(name, topic)
    topic.subscribed.then(
      () => watchExpiry(name, topic),
      () => {},
    )
    return topic
  }

  async function subscribe(name: string): Promise<void> {
    const client = connection()
    if (client.status !== 'ready') {
      connecting ??= readiness(client).finally(() => {
        connecting = undefined
      })
      await connecting
    }
    await client.subscribe(prefix + name)
  }

  return {
    async watch(name, onChange) {
      const topic = open(name)
      topic.listeners.add(onChange)
      const stop = () => {
        topic.listeners.delete(onChange)
        if (topic.listeners.size > 0 || topics.get(name) !== topic) return
        topics.delete(name)
        clearTimeout(topic.expiry)
        subscriber?.unsubscribe(prefix + name).catch(() => {})
      }
      try {
        await topic.subscribed
        return stop
      } catch (error) {
        stop()
        throw error
      }
    },
  }
}

/** Resolves when the connection can be used; rejects when its attempt to connect has failed. */
function readiness(client: Redis): Promise<void> {
  return new Promise((resolve, reject) => {
    if (client.status === 'end') reject(new Error('the connection has ended'))
    const settle = (act: () => void) => () => {
      client.off('ready', onReady)
      client.off('close', onClose)
      act()
    }
    const onReady = settle(resolve)
    const onClose = settle(() => reject(new Error('Redis does not answer')))
    client.on('ready', onReady)
    client.on('close', onClose)
  })
}
