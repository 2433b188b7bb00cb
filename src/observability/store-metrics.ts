/** Metrics of the stores and of the queues in front of them, read at each scrape. */
import { fastifyPlugin } from 'fastify-plugin'
import { Counter, Gauge } from 'prom-client'

export const storeMetrics = fastifyPlugin(
  async (app) => {
    const { postgres, redis, orders, checkStores } = app
    const registers = [app.metrics.registry]
    new Gauge({
      name: 'order_once_postgres_up',
      help: 'Whether Postgres responds (1) or not (0)',
      aggregator: 'min',
      registers,
      async collect() {
        this.set((await checkStores()).postgres === 'up' ? 1 : 0)
      },
    })
    new Gauge({
      name: 'order_once_redis_degraded',
      help: 'Whether orders go on without Redis because it does not respond (1)',
      aggregator: 'max',
      registers,
      async collect() {
        this.set((await checkStores()).redis === 'down' ? 1 : 0)
      },
    })
    new Counter({
      name: 'order_once_redis_errors_total',
      help: 'Calls to Redis that failed or had no response in time',
      registers,
      collect() {
        this.reset()
        this.inc(redis?.failedCalls() ?? 0)
      },
    })
    const gauges = {
      insert_queue_depth: ['Orders that wait for an insert', () => orders.queue().waiting],
      insert_queue_limit: ['How many orders may wait for an insert', () => orders.queue().limit],
      postgres_queries_pending: [
        'Queries that run in Postgres or wait for a connection',
        () => postgres.load().pending,
      ],
      postgres_queries_limit: ['How many queries may be pending', () => postgres.load().limit],
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
  },
  { name: 'store-metrics', dependencies: ['metrics', 'orders-repository', 'store-check'] },
)
