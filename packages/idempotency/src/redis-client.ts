/**
 * What the package needs of a client of Redis: ioredis 5 and later have it. The types of ioredis itself are
 * not used, so that an application without ioredis compiles.
 */

/** A client of one Redis or of a cluster. */
export interface RedisClient {
  readonly isCluster: boolean
  /** Adds a method with this name, which calls the script. */
  defineCommand(name: string, definition: { lua: string; numberOfKeys?: number }): void
}

/** A connection to one Redis. */
export interface RedisConnection extends RedisClient {
  readonly status: string
  readonly options: { keyPrefix?: string | undefined }
  getBuffer(key: string): Promise<Buffer | null>
  pttl(key: string): Promise<number>
  duplicate(override: { autoResubscribe: boolean; lazyConnect: boolean }): RedisSubscriber
  once(event: 'end', listener: () => void): unknown
}

/** A connection for pub/sub. */
export interface RedisSubscriber {
  readonly status: string
  readonly stream: { destroy(): unknown }
  on(event: 'message', listener: (channel: string) => void): unknown
  on(event: 'error' | 'ready', listener: () => void): unknown
  once(event: 'ready' | 'close', listener: () => void): unknown
  off(event: 'ready' | 'close', listener: () => void): unknown
  ping(): Promise<unknown>
  subscribe(...channels: string[]): Promise<unknown>
  unsubscribe(...channels: string[]): Promise<unknown>
  disconnect(reconnect?: boolean): void
}
