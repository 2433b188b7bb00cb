import { randomUUID } from 'node:crypto'
import autocannon from 'autocannon'
import { v7 as uuidv7 } from 'uuid'
import { meanOf, quantile } from './statistics.ts'

/** Requests to send, all with one body. */
export interface Load {
  port: number
  connections: number
  /** a multiple of `connections` */
  requests: number
  body: string
  signature: string
  /** keys that have orders already */
  knownKeys: string[]
  /** how many of ten requests take a known key; the others take a new one */
  knownInTen: number
  /** whether new keys ascend with time; otherwise they are random */
  orderedKeys: boolean
}

/**
 * What came back. Rate and latencies are those of the time in which all connections were at work:
 * from the moment when the last one had its first answer until the first one had its last.
 */
export interface Answers {
  requests: number
  /** how many requests had a new key */
  newKeys: number
  /** how often which status came */
  statuses: Record<string, number>
  /** connections that failed and requests that were not answered in time */
  errors: number
  /** how many answers came while all connections were at work */
  counted: number
  perSecond: number
  /** ms */
  p50: number
  p99: number
  mean: number
  /** µs of CPU of this process, for all requests */
  cpu: number
}

/** How often autocannon looks whether it has come to an end; by default once a second. */
const SAMPLE_MS = 20

process.on('message', (load: Load) => {
  send(load).then(
    (answers) => process.send?.({ answers }),
    (error) => process.send?.({ error: String(error) }),
  )
})
process.on('disconnect', () => process.exit())

async function send(load: Load): Promise<Answers> {
  const before = process.cpuUsage()
  const keys = keysOf(load)
  const statuses: Record<string, number> = {}
  const window = createWindow(load)
  const { errors } = await new Promise<autocannon.Result>((resolve, reject) => {
    const run = autocannon(
      {
        url: `http://127.0.0.1:${load.port}/orders`,
        method: 'POST',
        connections: load.connections,
        amount: load.requests,
        sampleInt: SAMPLE_MS,
        body: load.body,
        headers: { 'Content-Type': 'application/json', 'X-Signature': load.signature },
        // All is prepared before the first is sent: the time of this process is the service's, too.
        setupClient: (client) => {
          const share = Array.from({ length: load.requests / load.connections }, () => ({
            headers: { 'Idempotency-Key': keys.next() },
          }))
          client.setRequests(share)
        },
      },
      (error, result) => (error ? reject(error) : resolve(result)),
    )
    run.on('response', (client, status, _bytes, ms) => {
      statuses[status] = (statuses[status] ?? 0) + 1
      window.note(client, ms)
    })
  })
  const { user, system } = process.cpuUsage(before)
  return {
    requests: load.requests,
    newKeys: keys.newKeys(),
    statuses,
    errors,
    ...window.figures(),
    cpu: user + system,
  }
}

/** The time in which all connections are at work, and the latencies in it. */
function createWindow({ connections, requests }: Load) {
  const answered = new Map<autocannon.Client, number>()
  // autocannon's own histogram knows whole milliseconds only.
  const latencies = new Float64Array(requests)
  let recorded = 0
  let beganAt = Number.NaN
  let endedAt = Number.NaN
  return {
    note(client: autocannon.Client, ms: number): void {
      const count = (answered.get(client) ?? 0) + 1
      answered.set(client, count)
      if (count === 1 && answered.size === connections) {
        beganAt = performance.now()
      } else if (beganAt > 0 && !(endedAt > 0)) {
        latencies[recorded++] = ms
        if (count === requests / connections) endedAt = performance.now()
      }
    },
    figures() {
      const sorted = latencies.subarray(0, recorded).sort()
      return {
        counted: recorded,
        perSecond: (recorded / (endedAt - beganAt)) * 1000,
        p50: quantile(sorted, 0.5),
        p99: quantile(sorted, 0.99),
        mean: meanOf(sorted),
      }
    },
  }
}

function keysOf({ knownKeys, knownInTen, orderedKeys }: Load) {
  let known = 0
  let fresh = 0
  return {
    next(): string {
      if ((known + fresh) % 10 < knownInTen) return knownKeys[known++ % knownKeys.length] as string
      fresh++
      return orderedKeys ? uuidv7() : randomUUID()
    },
    newKeys: () => fresh,
  }
}
