/** CPU, memory, event loop, garbage collection, file descriptors and log of this process. */
import { Counter, collectDefaultMetrics, type Registry } from 'prom-client'
import { countDroppedLogLines } from '../log-destination.ts'

/** Gauges with the names of counters; each has a twin with labels and a correct name. */
const MISNAMED = /^nodejs_active_\w+_total$/

export function addProcessMetrics(register: Registry): void {
  collectDefaultMetrics({ register })
  for (const metric of register.getMetricsAsArray()) {
    if (MISNAMED.test(metric.name)) register.removeSingleMetric(metric.name)
    // Of several processes, the one with the latest event loop counts, not their average.
    if (metric.aggregator === 'average') metric.aggregator = 'max'
  }
  new Counter({
    name: 'order_once_log_lines_dropped_total',
    help: 'Log lines that could not be written: a full disk, or a pipe that is not read',
    registers: [register],
    collect() {
      this.reset()
      this.inc(countDroppedLogLines())
    },
  })
}
