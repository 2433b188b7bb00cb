// Sends orders with autocannon, and measures rate and latency of the responses.
import { randomUUID } from 'node:crypto'
import autocannon from 'autocannon'
import { signMessage } from '../support/message-signature.ts'
import type { Traffic } from './cases.ts'
import type { Speed } from './measure.ts'
import { percentile } from './statistics.ts'

export interface Load {
  port: number
  traffic: Traffic
  connections: number
  /** how many requests each connection sends, one after the other */
  requestsEach: number
}

/**
 * The speed is that of the time in which all connections were busy: from the first response on the last
 * connection until the last response on the first connection to finish.
 */
export interface LoadResult extends Speed {
  /** how many responses had which status */
  statuses: Record<string, number>
  /** how many responses were marked as replays */
  replays: number
  /** connections that failed, and requests that timed out */
  errors: number
  /** how many responses came while all connections were busy */
  counted: number
}

/** How often autocannon checks whether it has finished; its default is once a second. */
const SAMPLE_MS = 20

/** Sends all requests and waits for all responses. */
export async function sendLoad(load: Load): Promise<LoadResult> {
  const { port, traffic, connections, requestsEach } = load
  let sent = 0
  const nextKey = () => traffic.keys?.[sent++ % traffic.keys.length] ?? randomUUID()
  const statuses: Record<string, number> = {}
  let replays = 0
  const received = new Map<autocannon.Client, number>()
  // autocannon's own histogram counts whole milliseconds.
  const latencies: number[] = []
  let startedAt: number | undefined
  let endedAt: number | undefined

  const { errors } = await new Promise<autocannon.Result>((resolve, reject) => {
    const run = autocannon(
      {
        url: `http://127.0.0.1:${port}/orders`,
        method: 'POST',
        connections,
        amount: connections * requestsEach,
        sampleInt: SAMPLE_MS,
        body: traffic.body,
        setupClient: (client) => {
          // Prepared before the first request is sent: the load shares its cores with the service.
          const request = () => ({ headers: createHeaders(traffic, port, nextKey()) })
          client.setRequests(Array.from({ length: requestsEach }, request))
          client.on('headers', (message) => {
            if (isReplay(message)) replays++
          })
        },
      },
      (error, result) => (error ? reject(error) : resolve(result)),
    )
    run.on('response', (client, status, _bytes, latencyMs) => {
      statuses[status] = (statuses[status] ?? 0) + 1
      const count = (received.get(client) ?? 0) + 1
      received.set(client, count)
      if (received.size < connections || endedAt !== undefined) return
      if (startedAt === undefined) startedAt = performance.now()
      else latencies.push(latencyMs)
      if (count === requestsEach) endedAt = performance.now()
    })
  })
  return {
    statuses,
    replays,
    errors,
    counted: latencies.length,
    rate: (latencies.length / ((endedAt ?? Number.NaN) - (startedAt ?? Number.NaN))) * 1000,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
  }
}

/** @returns the headers of one request, with its signature */
function createHeaders(
  { body, signature, signingKey }: Traffic,
  port: number,
  key: string,
): Record<string, string> {
  const headers = { 'content-type': 'application/json', 'idempotency-key': key }
  if (!signingKey) return { ...headers, 'x-signature': signature }
  return signMessage(signingKey, { authority: `127.0.0.1:${port}`, body, headers })
}

/** @param message what autocannon's parser reports; its headers are names and values in turn */
function isReplay(message: unknown): boolean {
  const { headers } = message as { headers: string[] }
  const index = headers.findIndex((name) => name.toLowerCase() === 'idempotency-replayed')
  return headers[index + 1] === 'true'
}
