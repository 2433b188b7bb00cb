/**
 * What the package needs of a client of Redis: ioredis 5 and later have it. The types of ioredis itself are
 * not used, so that an application without ioredis compiles.
 */

/** A client of one Redis or of a cluster. */
export interface RedisClient {
  readonly isCluster: boolean
  readonly options: {
    keyPrefix?: string | undefined
    autoPipeliningIgnoredCommands?: string[] | undefined
  }
  /** Adds a method with this name, which calls the script. */
  defineCommand(name: string, definition: { lua: string; numberOfKeys?: number }): void
}

/** A client that a store is created on. */
export type RedisConnection = RedisServer | RedisCluster

interface AnyRedis extends RedisClient {
  readonly status: string
  getBuffer(key: string): Promise<Buffer | null>
  pttl(key: string): Promise<number>
  on(event: 'close', listener: () => void): unknown
  once(event: 'end', listener: () => void): unknown
}

/** A connection to one Redis, at its address or behind sentinels. */
export interface RedisServer extends AnyRedis {
  duplicate(override: { autoResubscribe: boolean; lazyConnect: boolean }): RedisSubscriber
}

/** Connections to the nodes of a Redis Cluster. */
export interface RedisCluster extends AnyRedis {
  nodes(): RedisNode[]
  on(event: 'close', listener: () => void): unknown
  on(event: '-node', listener: (node: RedisNode) => void): unknown
}

/** A connection to a node of a Redis Cluster. */
export interface RedisNode {
  readonly options: { host?: string | undefined; port?: number | undefined }
  duplicate(override: {
    autoResubscribe: boolean
    lazyConnect: boolean
    readOnly: boolean
    retryStrategy: () => null
  }): RedisSubscriber
}

/** A connection for pub/sub. */
export interface RedisSubscriber {
  readonly status: string
  readonly stream: { destroy(): unknown }
  readonly options: { host?: string | undefined; port?: number | undefined }
  on(event: 'message', listener: (channel: string) => void): unknown
  on(event: 'error' | 'ready', listener: () => void): unknown
  once(event: 'ready' | 'close' | 'end', listener: () => void): unknown
  off(event: 'ready' | 'close', listener: () => void): unknown
  ping(): Promise<unknown>
  subscribe(...channels: string[]): Promise<unknown>
  unsubscribe(...channels: string[]): Promise<unknown>
  disconnect(reconnect?: boolean): void
}
