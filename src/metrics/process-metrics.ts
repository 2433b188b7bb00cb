import { collectDefaultMetrics, type Registry } from 'prom-client'

/** Of gauges whose names say that they are counters, each has a twin with labels and a right name. */
const MISNAMED = /^nodejs_active_\w+_total$/

/** Adds this process's CPU, memory, event loop, garbage collection and file descriptors. */
export function addProcessMetrics(register: Registry): void {
  collectDefaultMetrics({ register })
  for (const metric of register.getMetricsAsArray()) {
    if (MISNAMED.test(metric.name)) register.removeSingleMetric(metric.name)
    // Of several processes, the one whose event loop is late tells, not their average.
    if (metric.aggregator === 'average') metric.aggregator = 'max'
  }
}
