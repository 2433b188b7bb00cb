import { withDeadline } from './deadline.ts'
import type { PostgresPool } from './storage/postgres.ts'
import type { RedisConnection } from './storage/redis.ts'
import type { Connections } from './storage/stores.ts'

/** Whether the stores answer. */
export interface StoreStates {
  postgres: 'up' | 'down'
  /** `none`: the service runs without one */
  redis: 'up' | 'down' | 'none'
}

/** @returns what was found within the last second or so; it never rejects */
export type CheckStores = () => Promise<StoreStates>

/** Long enough for a busy Postgres, and shorter than whoever asks waits. */
const POSTGRES_DEADLINE_MS = 1_000

/** However often it is asked, the stores are asked once in this time. */
const FRESH_MS = 1_000

/** Checks a process's connections to its stores, on demand. */
export function createStoreCheck({
  postgres,
  redis,
}: Pick<Connections, 'postgres' | 'redis'>): CheckStores {
  let latest: Promise<StoreStates> | undefined
  let checkedAt = 0

  async function check(): Promise<StoreStates> {
    const [isPostgresUp, isRedisUp] = await Promise.all([
      succeeds(() => askPostgres(postgres)),
      redis && succeeds(() => askRedis(redis)),
    ])
    return {
      postgres: isPostgresUp ? 'up' : 'down',
      redis: isRedisUp === undefined ? 'none' : isRedisUp ? 'up' : 'down',
    }
  }

  return () => {
    if (latest === undefined || performance.now() - checkedAt >= FRESH_MS) {
      checkedAt = performance.now()
      latest = check()
    }
    return latest
  }
}

async function askPostgres(pool: PostgresPool): Promise<void> {
  // Under load, when a question more would wait longest, orders have had the answer already.
  if (performance.now() - pool.load().answeredAt < FRESH_MS) return
  const answer = pool.run(({ $client }) => $client`select 1`)
  await withDeadline(answer, POSTGRES_DEADLINE_MS, 'Postgres did not answer')
}

/**
 * By a write, which a Redis that is full or a replica refuses; and as orders ask, so that a Redis that
 * has been left alone is back in use though no order comes.
 */
async function askRedis({ ask, client }: RedisConnection): Promise<void> {
  await ask(() => client.set('health', '1', 'PX', FRESH_MS))
}

async function succeeds(act: () => Promise<void>): Promise<boolean> {
  try {
    await act()
    return true
  } catch {
    return false
  }
}
