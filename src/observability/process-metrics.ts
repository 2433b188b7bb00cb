/** CPU, memory, event loop, garbage collection and file descriptors of this process. */
import { collectDefaultMetrics, type Registry } from 'prom-client'

/** Gauges with the names of counters; each has a twin with labels and a correct name. */
const MISNAMED = /^nodejs_active_\w+_total$/

export function addProcessMetrics(register: Registry): void {
  collectDefaultMetrics({ register })
  for (const metric of register.getMetricsAsArray()) {
    if (MISNAMED.test(metric.name)) register.removeSingleMetric(metric.name)
    // Of several processes, the one with the latest event loop counts, not their average.
    if (metric.aggregator === 'average') metric.aggregator = 'max'
  }
}
