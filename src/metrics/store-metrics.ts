import { Counter, Gauge, type Registry } from 'prom-client'
import type { CheckStores } from '../check-stores.ts'
import type { OrdersRepository } from '../orders/orders-repository.ts'
import type { Connections } from '../storage/stores.ts'

/** Adds the state of the stores and of the queues before them, looked up whenever it is read. */
export function addStoreMetrics(
  registry: Registry,
  sources: Pick<Connections, 'postgres' | 'redis'> & {
    checkStores: CheckStores
    orders: OrdersRepository
  },
): void {
  const { postgres, redis, checkStores, orders } = sources
  const registers = [registry]
  new Gauge({
    name: 'order_once_postgres_up',
    help: 'Whether Postgres answers (1) or not (0)',
    aggregator: 'min',
    registers,
    async collect() {
      this.set((await checkStores()).postgres === 'up' ? 1 : 0)
    },
  })
  new Gauge({
    name: 'order_once_redis_degraded',
    help: 'Whether orders go on without Redis because it does not answer (1)',
    aggregator: 'max',
    registers,
    async collect() {
      this.set((await checkStores()).redis === 'down' ? 1 : 0)
    },
  })
  new Counter({
    name: 'order_once_redis_errors_total',
    help: 'Calls to Redis that failed or were not answered in time',
    registers,
    collect() {
      this.reset()
      this.inc(redis?.failedCalls() ?? 0)
    },
  })
  const gauges = {
    insert_queue_depth: ['Orders that wait for an insert', () => orders.queue().waiting],
    insert_queue_limit: ['How many orders may wait for an insert', () => orders.queue().limit],
    postgres_queries_at_work: [
      'Queries at work in Postgres or waiting for a connection',
      () => postgres.load().queries,
    ],
    postgres_queries_limit: ['How many queries may be at work', () => postgres.load().limit],
  } as const
  for (const [name, [help, read]] of Object.entries(gauges)) {
    new Gauge({
      name: `order_once_${name}`,
      help,
      registers,
      collect() {
        this.set(read())
      },
    })
  }
}
