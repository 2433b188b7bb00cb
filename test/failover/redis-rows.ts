/** The rows of a Redis that fails over by itself: with sentinels, or as a cluster. Postgres goes on. */

import { PostgresNode } from '../support/postgres-node.ts'
import { redisServer } from '../support/private-redis.ts'
import { type ClusterNode, type RedisCluster, startRedisCluster } from '../support/redis-cluster.ts'
import { type SentinelSystem, startSentinels } from '../support/sentinels.ts'
import { until } from '../support/until.ts'
import type { Row, Stores } from './rows.ts'

/** A failover that has not ended by then has failed. */
const FAILOVER_TIMEOUT_MS = 60_000

/** Some hundred of the keys of the load are in them, and move under it. */
const MOVED_SLOTS = 1_000

async function killMaster({ readMasterPort, server }: SentinelSystem): Promise<void> {
  const lost = await readMasterPort()
  await server(lost).kill()
  await until(async () => (await readMasterPort()) !== lost, FAILOVER_TIMEOUT_MS)
}

async function killMasterOfShard({ nodes }: RedisCluster): Promise<void> {
  const [first, lost] = nodes as [ClusterNode, ClusterNode]
  await lost.kill()
  await until(async () => {
    const ranges = await first.client.cluster('SLOTS')
    return ranges.every(([, , master]) => master?.[1] !== lost.port)
  }, FAILOVER_TIMEOUT_MS)
}

/** Creates a row. @param failOver returns when the new master accepts writes */
function createRow<System extends { url: string; stop(): Promise<void> }>(
  name: string,
  startRedis: () => Promise<System>,
  failOver: (redis: System) => Promise<void>,
): Row {
  return {
    name,
    missing: redisServer === undefined ? 'redis-server' : undefined,
    async start(onEnd): Promise<Stores> {
      const database = await PostgresNode.startPrimary()
      onEnd(() => database.remove())
      const redis = await startRedis()
      onEnd(() => redis.stop())
      return {
        databaseUrl: database.url,
        redisUrl: redis.url,
        failOver: async () => {
          await failOver(redis)
          return performance.now()
        },
        administer: (statements) => database.administer(statements),
      }
    },
  }
}

export const redisRows: Row[] = [
  createRow('Redis with sentinels, kill -9 of the master', startSentinels, killMaster),
  createRow('Redis with sentinels, planned failover', startSentinels, (redis) =>
    redis.switchMaster(),
  ),
  createRow('Redis Cluster, kill -9 of a master', startRedisCluster, killMasterOfShard),
  createRow(`Redis Cluster, ${MOVED_SLOTS} slots move`, startRedisCluster, (redis) =>
    redis.moveSlots(0, MOVED_SLOTS - 1),
  ),
]
