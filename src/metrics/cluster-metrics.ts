import cluster, { type Worker } from 'node:cluster'
import { AggregatorRegistry, type Registry } from 'prom-client'
import { answerPeer, askPeer } from '../ipc.ts'

/** Longer than a check of the stores takes, and shorter than a scrape. */
const WORKER_DEADLINE_MS = 5_000
/** A process that asks its primary waits for those. */
const PRIMARY_DEADLINE_MS = 6_000

/** What a registry holds, as it can be sent. */
type Report = Awaited<ReturnType<Registry['getMetricsAsJSON']>>

/**
 * For a primary: its metrics and those of its workers, added up, for itself and for any worker that
 * asks.
 *
 * Prometheus takes a counter that falls for one that began anew, and all that it holds for new. So the
 * sum keeps what a worker last said that does not answer in time, and the counts of one that has ended.
 */
export function sumOverProcesses(own: Registry): () => Promise<string> {
  const latest = new Map<number, Report>()
  const ended: Report[] = []

  cluster.on('exit', ({ id }) => {
    const last = latest.get(id)
    if (last) ended.push(last.filter(isCount))
    latest.delete(id)
  })

  async function ask(worker: Worker): Promise<void> {
    const report = await askPeer(worker, 'metrics', WORKER_DEADLINE_MS).catch(() => undefined)
    if (report && !worker.isDead()) latest.set(worker.id, report as Report)
  }

  const read = oneAtATime(async () => {
    const count = ended.length
    ended.splice(0, count, await AggregatorRegistry.aggregate(ended).getMetricsAsJSON())
    const workers = Object.values(cluster.workers ?? {}).filter((worker) => worker !== undefined)
    const [ownReport] = await Promise.all([own.getMetricsAsJSON(), ...workers.map(ask)])
    return AggregatorRegistry.aggregate([ownReport, ...ended, ...latest.values()]).metrics()
  })
  cluster.on('fork', (worker) => answerPeer(worker, 'sum of metrics', read))
  return read
}

/** For a worker: tells its primary its metrics. @returns what asks that one for the sum */
export function reportToPrimary(own: Registry): () => Promise<string> {
  answerPeer(process, 'metrics', () => own.getMetricsAsJSON())
  return oneAtATime(
    async () => (await askPeer(process, 'sum of metrics', PRIMARY_DEADLINE_MS)) as string,
  )
}

/** What adds up over a life, and so does not end with it. The package's types take it for a number. */
function isCount({ type }: Report[number]): boolean {
  return ['counter', 'histogram'].includes(String(type))
}

/** Whoever asks while an answer is on its way gets that one. */
function oneAtATime<T>(read: () => Promise<T>): () => Promise<T> {
  let reading: Promise<T> | undefined
  return () => {
    reading ??= read().finally(() => {
      reading = undefined
    })
    return reading
  }
}
