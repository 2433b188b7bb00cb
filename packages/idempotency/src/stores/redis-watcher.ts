/** Notifies of changes of Redis keys by pub/sub. */
import { DeadlineError, withDeadline } from '../deadline.ts'
import type { RedisCluster, RedisConnection, RedisNode, RedisSubscriber } from '../redis-client.ts'

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

/** A connection that only receives does not show that its server is gone. It is checked at this interval. */
const HEARTBEAT_MS = 1_000

/** After a lost connection to a node of a cluster: the next node may respond. */
const NEXT_NODE_DELAY_MS = 100

/** The longest delay of setTimeout: beyond it, the timer fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1

interface Channel {
  listeners: Set<() => void>
  subscribed: Promise<unknown>
  expiryTimer: NodeJS.Timeout | undefined
}

/**
 * Creates a watcher with the options and the key prefix of a connection; it closes with it. On a cluster it
 * listens to one node, to which all others forward what is published.
 */
export function createRedisWatcher(redis: RedisConnection): RedisWatcher {
  const prefix = redis.options.keyPrefix ?? ''
  const channels = new Map<string, Channel>()
  let subscriber: RedisSubscriber | undefined
  let connecting: Promise<void> | undefined
  let heartbeat: NodeJS.Timeout | undefined

  // Its server was lost, or is no longer the master: the subscriber leaves it, too.
  redis.on('close', () => {
    if (subscriber?.status === 'ready') subscriber.disconnect(true)
  })
  if (isCluster(redis)) {
    redis.on('-node', (node) => {
      const { host, port } = subscriber?.options ?? {}
      if (node.options.host === host && node.options.port === port) subscriber?.disconnect()
    })
  }
  redis.once('end', () => subscriber?.disconnect())

  /** @throws if the cluster has no node that is connected */
  function getSubscriber(): RedisSubscriber {
    if (subscriber) return subscriber
    const options = { autoResubscribe: false, lazyConnect: false }
    const opened = isCluster(redis)
      ? chooseNode(redis).duplicate({ ...options, retryStrategy: () => null, readOnly: false })
      : redis.duplicate(options)
    opened.on('error', () => {}) // the other connection reports them
    opened.on('message', (channel: string) => notify(channel.slice(prefix.length)))
    opened.on('ready', () => void resubscribe())
    if (isCluster(redis)) opened.once('end', leaveNode)
    subscriber = opened
    return opened
  }

  /** A node may be gone for good: another one is used. */
  function leaveNode(): void {
    subscriber = undefined
    if (channels.size === 0 || redis.status === 'end') return
    setTimeout(() => {
      try {
        getSubscriber()
      } catch {
        leaveNode() // until the cluster is connected again
      }
    }, NEXT_NODE_DELAY_MS).unref()
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

const isCluster = (redis: RedisConnection): redis is RedisCluster => redis.isCluster

function chooseNode(cluster: RedisCluster): RedisNode {
  const nodes = cluster.nodes()
  const node = nodes[Math.floor(Math.random() * nodes.length)]
  if (node === undefined) throw new Error('no node of the cluster is connected')
  return node
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
