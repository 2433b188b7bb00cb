/** The reconciliation: finds orders that Redis remembers and Postgres has lost, and restores them. */
import { isUtf8 } from 'node:buffer'
import {
  createRecordFormat,
  ForeignRecordError,
  getRecordName,
  parseIdempotencyKey,
  type RunQuery,
} from '@order-once/idempotency'
import { withDeadline } from '@order-once/idempotency/batching'
import { Cluster, type Redis } from 'ioredis'
import type postgres from 'postgres'
import { DEFAULT_CLIENT_ID, isClientId } from './clients/clients-file.ts'
import {
  findMissingOrders,
  type MissingOrder,
  parseRememberedOrder,
  restoreOrders,
} from './orders/remembered-orders.ts'
import type { Order } from './orders/schema.ts'
import { CHECKED_RECORD } from './stores/check-redis.ts'
import {
  type DatabaseHistory,
  isContinued,
  isHistoryHidden,
  readDatabaseHistory,
  storeKnownHistory,
} from './stores/database-history.ts'
import { withDedicatedConnection } from './stores/postgres-session.ts'
import type { Stores } from './stores/prepare.ts'
import { listMasters, listSlotMasters, type RedisClient } from './stores/redis-client.ts'
import { connectToRedis } from './stores/redis-session.ts'

/** Records per step: Redis and Postgres serve requests in between. */
const BATCH_SIZE = 500

/** Longer than Postgres takes for a batch on a slow disk, or for a lock that ends. */
const BATCH_TIMEOUT_MS = 30_000

/**
 * Many times the size of the record of an order. Only this much of a larger value is read, and the truncated text is
 * not a record. A batch of whole values would take too long, or not fit into memory.
 */
const MAX_BYTES_READ = 256 * 1024

const PREFIX = getRecordName('')

/** A missing order, and what became of it. */
export type FoundOrder = MissingOrder & { isRestored: boolean }

export interface ReconcileOptions {
  /** whether missing orders are restored */
  apply: boolean
  /** orders that are older are left out; in ms since 1970 */
  since?: number | undefined
  /** called with each remembered order that was missing when it was looked up */
  onMissing?: (found: FoundOrder) => void
  /** called after each step with how many of Redis's keys are read, of about how many */
  onProgress?: (read: number, total: number) => void
}

export interface ReconcileReport {
  /** remembered orders that were looked up */
  remembered: number
  /** those that Postgres had not, restored ones and conflicts included */
  missing: number
  restored: number
  /** missing orders whose key another order has */
  conflicts: number
  /** values that are neither a claim nor a record that the service can have made */
  notUnderstood: number
}

/**
 * Looks up the order of each completed record in Redis, and with `apply` inserts those that are missing, to the
 * byte. Rows that exist are never changed, so it can run while the service runs, and again after a failure.
 * After a complete run that leaves no missing order, the watch for failovers reports nothing more.
 *
 * @throws if Postgres or Redis fails, a part of Redis cannot be read, or Postgres is failed over; orders that were
 * restored until then stay
 */
export async function reconcile(
  { databaseUrl, databaseId }: Pick<Stores, 'databaseUrl' | 'databaseId'>,
  redisUrl: string,
  options: ReconcileOptions,
): Promise<ReconcileReport> {
  const redis = await connectToRedis(redisUrl)
  try {
    const { history, report } = await withDedicatedConnection(databaseUrl, async (client) => ({
      history: await readHistoryIfShown(client),
      report: await reconcileRecords(redis, client, databaseId, options),
    }))
    if (history) {
      await checkHistory(databaseUrl, history)
      const isComplete = options.since === undefined && (options.apply || report.missing === 0)
      if (isComplete) await storeKnownHistory(redis, databaseId, history)
    }
    return report
  } finally {
    redis.disconnect()
  }
}

/** @returns undefined if the server does not show its timeline: then a failover during the run is not detected */
async function readHistoryIfShown(client: postgres.Sql): Promise<DatabaseHistory | undefined> {
  try {
    return await readHistory(client)
  } catch (error) {
    if (isHistoryHidden(error)) return undefined
    throw error
  }
}

const readHistory = (client: postgres.Sql) =>
  withDeadline(readDatabaseHistory(client), BATCH_TIMEOUT_MS, 'Postgres did not respond')

/**
 * Checks that the present primary continues the history that was read at the start of the run. It uses a new
 * connection: on the old one, a former primary that was not fenced still responds.
 *
 * @throws if it does not
 */
async function checkHistory(databaseUrl: string, earlier: DatabaseHistory): Promise<void> {
  if (isContinued(earlier, await withDedicatedConnection(databaseUrl, readHistory))) return
  throw new Error(
    'Postgres was failed over during the run, and restored orders may be missing again: run order-once reconcile again',
  )
}

async function reconcileRecords(
  redis: RedisClient,
  client: postgres.Sql,
  databaseId: string,
  { apply, since = 0, onMissing = () => {}, onProgress = () => {} }: ReconcileOptions,
): Promise<ReconcileReport> {
  const report = { remembered: 0, missing: 0, restored: 0, conflicts: 0, notUnderstood: 0 }
  const records = createRecordFormat({ database: databaseId })
  const runQuery: RunQuery = (text, values) =>
    withDeadline(
      client.unsafe(text, values as never[]),
      BATCH_TIMEOUT_MS,
      'Postgres did not respond',
    )
  /** ids of missing orders: SCAN can return a key twice */
  const reported = new Set<string>()

  /** @returns undefined if there is no record, or it is not that of an order of this database */
  async function readOrder(name: string): Promise<Order | undefined> {
    const parsedName = parseRecordName(name)
    if (parsedName === undefined) {
      report.notUnderstood++
      return undefined
    }
    const { clientId, key } = parsedName
    try {
      const bytes = await readValue(redis, name)
      if (bytes?.length === 0) return undefined // it has expired
      // Decoding would replace malformed bytes.
      const record = bytes && isUtf8(bytes) ? records.parse(key, bytes.toString()) : undefined
      if (record?.state === 'in_flight') return undefined
      const order =
        record && record.encoding === undefined
          ? parseRememberedOrder(clientId, key, {
              statusCode: record.status_code,
              body: record.response,
              fingerprint: record.payload_hash,
            })
          : undefined
      if (order === undefined) report.notUnderstood++
      return order
    } catch (error) {
      if (error instanceof ForeignRecordError) return undefined
      throw error
    }
  }

  async function reconcileBatch(names: string[]): Promise<void> {
    // One key a command: on a cluster, several would be in different slots.
    const remembered = (await Promise.all(names.map(readOrder)))
      .filter((order) => order !== undefined)
      .filter(({ created_at }) => created_at >= since)
    report.remembered += remembered.length
    let missing = await findMissingOrders(runQuery, remembered)
    let restored = new Set<string>()
    if (apply) {
      const lost = missing.filter(({ otherId }) => otherId === undefined)
      restored = await restoreOrders(
        runQuery,
        lost.map(({ order }) => order),
      )
      // Since the look-up, another run can have restored an order, or a request can have taken its key.
      const others = missing.map(({ order }) => order).filter(({ id }) => !restored.has(id))
      missing = [
        ...lost.filter(({ order }) => restored.has(order.id)),
        ...(await findMissingOrders(runQuery, others)),
      ]
    }
    for (const { order, otherId } of missing) {
      if (reported.has(order.id)) continue
      reported.add(order.id)
      const isRestored = restored.has(order.id)
      report.missing++
      if (isRestored) report.restored++
      if (otherId !== undefined) report.conflicts++
      onMissing({ order, otherId, isRestored })
    }
  }

  const masters = listMasters(redis)
  checkSlots(redis, masters)
  const sizes = await Promise.all(masters.map((master) => readPart(master.dbsize())))
  const total = sizes.reduce((sum, size) => sum + size, 0)
  let read = 0
  for (const master of masters) {
    for await (const names of scanNames(master)) {
      await reconcileBatch(names.filter(isRecordName))
      read += names.length
      onProgress(Math.min(read, total), total)
    }
  }
  checkSlots(redis, masters) // a failover during the run
  return report
}

/** @throws if a slot of a cluster is on none of these servers */
function checkSlots(redis: RedisClient, masters: Redis[]): void {
  if (!(redis instanceof Cluster)) return
  const read = new Set<string | undefined>(
    masters.map(({ options }) => `${options.host}:${options.port}`),
  )
  const unread = listSlotMasters(redis).filter((master) => !read.has(master)).length
  if (unread > 0) throw createUnreadError(`${unread} slots have no node that responds`)
}

/** @throws an error that says what it means for the run */
const readPart = <T>(reply: Promise<T>): Promise<T> =>
  reply.catch((error) => {
    throw createUnreadError(error.message)
  })

const createUnreadError = (reason: string) => new Error(`not all of Redis could be read: ${reason}`)

/**
 * Reads the beginning of a value, which is all of a record.
 *
 * @returns empty if there is no such key, or its value is empty; undefined if its value is not a string
 */
const readValue = (redis: RedisClient, name: string): Promise<Buffer | undefined> =>
  readPart(
    redis.getrangeBuffer(name, 0, MAX_BYTES_READ - 1).catch((error) => {
      if (isWrongType(error)) return undefined
      throw error
    }),
  )

/** Reads the names of all keys of a server, in steps; some of them twice. */
async function* scanNames(redis: Redis): AsyncGenerator<string[]> {
  let cursor = '0'
  do {
    const [next, names] = await readPart(redis.scan(cursor, 'COUNT', BATCH_SIZE))
    cursor = next
    yield names
  } while (cursor !== '0')
}

const isRecordName = (name: string) => name.startsWith(PREFIX) && !name.startsWith(CHECKED_RECORD)

/** Whether a value is no string. */
const isWrongType = (error: unknown) =>
  error instanceof Error && error.message.startsWith('WRONGTYPE')

/**
 * Parses `idemp:<key>` of the client `default`, and `idemp:<client>,<key>` of the others: no key has a comma.
 *
 * @returns undefined if the service cannot have made this name
 */
function parseRecordName(name: string): { clientId: string; key: string } | undefined {
  const [key = '', client, ...more] = name.slice(PREFIX.length).split(',').reverse()
  const isName =
    more.length === 0 && client !== DEFAULT_CLIENT_ID && parseIdempotencyKey(key) === key
  const clientId = client ?? DEFAULT_CLIENT_ID
  return isName && isClientId(clientId) ? { clientId, key } : undefined
}
