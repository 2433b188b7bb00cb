/** The rows of a Postgres that Patroni fails over, by the files of docs/deploy/patroni. */
import { RedisServer } from '../faults/redis-server.ts'
import { hasPatroni, type PatroniCluster, startPatroni } from '../support/patroni.ts'
import type { Row } from './rows.ts'

const FAILOVERS: Record<string, (cluster: PatroniCluster) => Promise<number>> = {
  'kill -9 of the primary': (cluster) => cluster.killPrimary(),
  'patronictl switchover': (cluster) => cluster.switchOver(),
}

const WAYS = { 'through HAProxy': 'proxyUrl', 'several hosts': 'hostsUrl' } as const

export const patroniRows: Row[] = Object.entries(WAYS).flatMap(([way, url]) =>
  Object.entries(FAILOVERS).map(([failover, failOver]) => ({
    name: `Patroni, ${way}, ${failover}`,
    missing: hasPatroni ? undefined : 'one of Patroni, etcd, HAProxy and PostgreSQL',
    async start(onEnd) {
      const cluster = await startPatroni(onEnd)
      const redis = await RedisServer.start()
      onEnd(() => redis.kill())
      return {
        databaseUrl: cluster[url],
        redisUrl: `redis://127.0.0.1:${redis.port}`,
        failOver: () => failOver(cluster),
        administer: cluster.administer,
      }
    },
  })),
)
