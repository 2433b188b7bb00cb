/** Checks whether the stores respond. */
import { withDeadline } from '@order-once/idempotency/batching'
import type { FastifyInstance } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { createUseCheck } from './check-redis.ts'
import { INSERT_PROBE } from './insert-probe.ts'
import type { PostgresPool } from './postgres-pool.ts'

declare module 'fastify' {
  interface FastifyInstance {
    checkStores: CheckStores
  }
}

export interface StoreStates {
  postgres: 'up' | 'down'
  /** `none`: the service runs without one */
  redis: 'up' | 'down' | 'none'
}

/** Returns states that are at most about a second old; it never rejects. */
export type CheckStores = () => Promise<StoreStates>

/** Long enough for a busy Postgres, and shorter than the time-out of a probe. */
const POSTGRES_CHECK_TIMEOUT_MS = 1_000

/** However many probes there are, the stores are checked once in this time. */
const MAX_AGE_MS = 1_000

/** Creates a check of a process's connections. */
export function createStoreCheck({
  postgres,
  redis,
}: Pick<FastifyInstance, 'postgres' | 'redis'>): CheckStores {
  // Through the circuit breaker, so that a Redis whose circuit is open is used again even while no orders
  // come.
  const checkRedis = redis && createUseCheck(redis.client, redis.runCall)
  let latest: Promise<StoreStates> | undefined
  let checkedAt = 0

  async function check(): Promise<StoreStates> {
    const [isPostgresUp, isRedisUp] = await Promise.all([
      succeeds(() => checkPostgres(postgres)),
      checkRedis && succeeds(checkRedis),
    ])
    return {
      postgres: isPostgresUp ? 'up' : 'down',
      redis: isRedisUp === undefined ? 'none' : isRedisUp ? 'up' : 'down',
    }
  }

  return () => {
    if (latest === undefined || performance.now() - checkedAt >= MAX_AGE_MS) {
      checkedAt = performance.now()
      latest = check()
    }
    return latest
  }
}

/** Takes the lock of an insert, but writes nothing: cheap enough for each second of an idle service. */
const LOCK_PROBE = 'update public.orders set id = id where false'

async function checkPostgres(pool: PostgresPool): Promise<void> {
  const { wroteAt, hasFailedToWrite } = pool.load()
  // A recent insert shows it already; under load this saves a query.
  if (!hasFailedToWrite && performance.now() - wroteAt < MAX_AGE_MS) return
  // After a failure, only an insert shows that inserts work again.
  const text = hasFailedToWrite ? INSERT_PROBE : LOCK_PROBE
  const query = pool.query(text, [], { isWritten: () => hasFailedToWrite })
  await withDeadline(query, POSTGRES_CHECK_TIMEOUT_MS, 'Postgres did not respond')
}

async function succeeds(act: () => Promise<void>): Promise<boolean> {
  try {
    await act()
    return true
  } catch {
    return false
  }
}

/** Decorates the app with `checkStores`. */
export const storeCheck = fastifyPlugin(
  async (app) => {
    app.decorate('checkStores', createStoreCheck(app))
  },
  { name: 'store-check', dependencies: ['postgres', 'redis'] },
)
