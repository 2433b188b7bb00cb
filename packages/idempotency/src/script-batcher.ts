/** Sends calls of one Redis script in batches: one command for many keys. */
import { Batcher, type ConcurrencyLimit } from './batcher.ts'
import type { RedisClient } from './redis-client.ts'

/** Runs a call to Redis, or refuses it, as a circuit breaker does. */
export type RunCall = <T>(call: () => Promise<T>) => Promise<T>

export interface ScriptBatcherOptions<Item, Result> {
  /** the name of the command that is defined on the client */
  name: string
  /**
   * Handles each of `KEYS` by itself. `ARGV` begins with the shared arguments; then come the arguments of each
   * key, in the order of `KEYS`. Returns the replies in one array: as many for each key. An error of one key
   * alone is a reply, by `redis.pcall`.
   */
  lua: string
  repliesPerKey: number
  /** how many keys one call may have: Redis serves nothing else meanwhile */
  maxKeys: number
  /** of the calls that may be in flight */
  limit: ConcurrencyLimit
  runCall: RunCall
  /** whether the item is still needed when its call is sent; by default each is */
  isNeeded?: (item: Item) => boolean
  /** the same for all keys, and sent once for each call; none by default */
  sharedArguments?: Argument[]
  getKey: (item: Item) => string
  /** the item's own arguments, as many for each item; none by default */
  getArguments?: (item: Item) => Argument[]
  /** reads the replies of one key; a rejection is the failure of this key alone */
  parseReplies: (replies: unknown[], item: Item) => Result | PromiseLike<Result>
}

type Argument = string | number | Buffer

/** How many items may wait for a call: what Redis processes in about 50 ms. */
const MAX_WAITING_ITEMS = 5_000

/** Defines a script of one key on the client. @returns a function that calls it */
export function defineKeyScript(
  redis: RedisClient,
  name: string,
  lua: string,
): (key: string, ...args: Argument[]) => Promise<unknown> {
  return defineScript(redis, name, { lua, numberOfKeys: 1 })
}

/**
 * Defines a script that the driver never adds to an automatic pipeline: during a slot move of a cluster it
 * rejects whole pipelines, and it repeats single commands at the node that has the slot.
 */
function defineScript<Call>(
  redis: RedisClient,
  name: string,
  definition: { lua: string; numberOfKeys?: number },
): Call {
  redis.defineCommand(name, definition)
  const { options } = redis
  options.autoPipeliningIgnoredCommands = [...(options.autoPipeliningIgnoredCommands ?? []), name]
  return Reflect.get(redis, name).bind(redis)
}

/**
 * Defines the script on the client, and returns a function that calls it for one item. All items of one turn of
 * the event loop share a call. See docs/performance.md.
 *
 * On a cluster the keys of a call would be in several slots, which Redis refuses (CROSSSLOT): there,
 * and after the first such refusal, each key goes to Redis in a command of its own.
 *
 * @returns a function that throws {@link QueueFullError} at once, if too many items wait for a call, and
 * `NotSentError` if its item was not needed any more when its turn came
 */
export function createScriptBatcher<Item, Result>(
  redis: RedisClient,
  options: ScriptBatcherOptions<Item, Result>,
): (item: Item) => Promise<Result> {
  const { name, lua, repliesPerKey, maxKeys, limit, runCall } = options
  const { sharedArguments = [], getKey, getArguments = () => [], parseReplies } = options
  const command = defineScript<
    (numberOfKeys: number, ...keysAndArguments: Argument[]) => Promise<unknown[]>
  >(redis, name, { lua })
  let isClustered = redis.isCluster

  const batcher = new Batcher<Item, Result>({
    maxItems: maxKeys,
    maxWaiting: MAX_WAITING_ITEMS,
    limit,
    isNeeded: options.isNeeded,
    async send(items) {
      if (!isClustered || items.length === 1) {
        try {
          return await callForAll(items)
        } catch (error) {
          if (!isCrossSlot(error)) throw error
          isClustered = true
        }
      }
      return callForEach(items)
    },
  })

  async function callForAll(items: Item[]): Promise<(Result | PromiseLike<Result>)[]> {
    const replies = await runCall(async () => {
      const replies = await callScript(items)
      // Every key failed (out of memory, for example): fail the batch, so that it counts as a failure.
      if (replies[0] instanceof Error && replies.every(isErrorOrFiller(repliesPerKey))) {
        throw replies[0]
      }
      return replies
    })
    return items.map((item, i) =>
      parseReplies(replies.slice(i * repliesPerKey, (i + 1) * repliesPerKey), item),
    )
  }

  /** Sends a command for each item. Together they fail only if all fail: one lost shard must not open the circuit. */
  async function callForEach(items: Item[]): Promise<(Result | PromiseLike<Result>)[]> {
    const results = await runCall(async () => {
      const results = await Promise.allSettled(items.map((item) => callScript([item])))
      const failures = results.map((result) =>
        result.status === 'rejected' ? result.reason : result.value[0],
      )
      if (failures.every((failure) => failure instanceof Error)) throw failures[0]
      return results
    })
    return results.map((result, i) =>
      result.status === 'rejected'
        ? Promise.reject(result.reason)
        : parseReplies(result.value, items[i] as Item),
    )
  }

  async function callScript(items: Item[]): Promise<unknown[]> {
    const keys = items.map(getKey)
    const replies = await command(
      keys.length,
      ...keys,
      ...sharedArguments,
      ...items.flatMap(getArguments),
    )
    if (replies.length !== items.length * repliesPerKey) {
      throw new Error(`${name} returned ${replies.length} replies for ${items.length} keys`)
    }
    return replies
  }

  return (item) => batcher.add(item)
}

/** The first reply of a key is an error if the key failed; its other replies are fillers. */
const isErrorOrFiller = (repliesPerKey: number) => (reply: unknown, i: number) =>
  i % repliesPerKey !== 0 || reply instanceof Error

const isCrossSlot = (error: unknown) =>
  error instanceof Error && error.message.startsWith('CROSSSLOT')
