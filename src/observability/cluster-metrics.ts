/** The metrics of several processes, added up. */
import cluster, { type Worker } from 'node:cluster'
import { AggregatorRegistry, type Registry } from 'prom-client'
import { replyToPeer, requestFromPeer } from './ipc.ts'

/** Longer than a check of the stores takes, and shorter than the time-out of a scrape. */
const WORKER_TIMEOUT_MS = 5_000
/** A worker waits for the primary, which waits for all workers. */
const PRIMARY_TIMEOUT_MS = 6_000

/** About a microsecond: sums of its multiples are exact for 272 years. */
const TIME_STEP_SECONDS = 2 ** -20

const OWN_METRICS = 'metrics'
const SUMMED_METRICS = 'sum of metrics'

/** The content of a registry, as it can be sent to another process. */
type Report = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

/**
 * For a primary: adds up its metrics and those of its workers, for itself and for any worker that
 * requests the sum.
 *
 * A counter that falls looks like a restart to Prometheus, which then counts all of it again. So the sum
 * keeps the last report of a worker that does not reply in time, and the counts of one that has ended.
 *
 * @returns a function that reads the sum, in the text format of Prometheus
 */
export function sumOverProcesses(own: Registry): () => Promise<string> {
  const listening = new Set<Worker>()
  const latest = new Map<number, Report>()
  const ended: Report[] = []

  // One that still starts does not reply yet, and has served nothing.
  cluster.on('listening', (worker) => {
    if (!worker.isDead()) listening.add(worker)
  })
  cluster.on('exit', (worker) => {
    const { id } = worker
    listening.delete(worker)
    const last = latest.get(id)
    if (last) ended.push(last.filter(isCumulative))
    latest.delete(id)
  })

  async function updateReport(worker: Worker): Promise<void> {
    const report = await requestFromPeer(worker, OWN_METRICS, WORKER_TIMEOUT_MS).catch(
      () => undefined,
    )
    if (report && !worker.isDead()) latest.set(worker.id, roundCounts(report as Report))
  }

  const read = shareConcurrentCalls(async () => {
    const count = ended.length
    ended.splice(0, count, await AggregatorRegistry.aggregate(ended).getMetricsAsJSON())
    const [ownReport] = await Promise.all([
      own.getMetricsAsJSON(),
      ...Array.from(listening, updateReport),
    ])
    const reports = [roundCounts(ownReport), ...ended, ...latest.values()]
    return AggregatorRegistry.aggregate(reports).metrics()
  })
  cluster.on('fork', (worker) => replyToPeer(worker, SUMMED_METRICS, read))
  return read
}

/** For a worker: reports its metrics to the primary. @returns a function that reads the sum from there */
export function reportToPrimary(own: Registry): () => Promise<string> {
  replyToPeer(process, OWN_METRICS, () => own.getMetricsAsJSON())
  return shareConcurrentCalls(async () =>
    String(await requestFromPeer(process, SUMMED_METRICS, PRIMARY_TIMEOUT_MS)),
  )
}

/** Whether it only grows, so that it counts after its process has ended. */
function isCumulative({ type }: Report[number]): boolean {
  return ['counter', 'histogram'].includes(String(type)) // the package's types say it is a number
}

/** Rounds what only grows, so that no order of addition makes the sum fall by a rounding error. */
function roundCounts(report: Report): Report {
  return report.map((metric) => {
    if (!isCumulative(metric)) return metric
    return {
      ...metric,
      // Copies: these are the values of the counter itself.
      values: metric.values.map((entry) => ({
        ...entry,
        value: Math.round(entry.value / TIME_STEP_SECONDS) * TIME_STEP_SECONDS,
      })),
    }
  })
}

/** Concurrent calls share one result. */
function shareConcurrentCalls<T>(read: () => Promise<T>): () => Promise<T> {
  let reading: Promise<T> | undefined
  return () => {
    reading ??= read().finally(() => {
      reading = undefined
    })
    return reading
  }
}
