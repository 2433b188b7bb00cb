// What is measured: kinds of requests, and the cases of the table and of the chart.
import { createHmac, randomUUID } from 'node:crypto'
import { createKeys, type SigningKey } from '../support/message-signature.ts'

/** One kind of request and the response that it must get. */
export interface Traffic {
  body: string
  signature: string
  /** signs each request with an HTTP message signature, instead of `signature` */
  signingKey?: SigningKey
  /** undefined: each request has a new key */
  keys?: string[]
  status: number
  isReplay: boolean
  createsOrder: boolean
}

/** One program under one load. */
export interface Case {
  name: string
  program: 'service' | 'bare Fastify' | 'pgbench'
  traffic: Traffic
  env: Record<string, string>
  processes: number
  connections: number
  /** the case that the table compares it with */
  reference?: Case | undefined
}

/** Not the published one, with which the service also checks the name in `Host`. */
export const SECRET = 'secret of the benchmark'
const BODY = JSON.stringify({ user_id: 'user-1', item: 'book', amount: 500 })

export const NEW_ORDERS: Traffic = {
  body: BODY,
  signature: createHmac('sha256', SECRET).update(BODY).digest('hex'),
  status: 201,
  isReplay: false,
  createsOrder: true,
}
/** The warm-up creates the orders that are replayed; many, to spread the load over many keys. */
export const FIRST_ORDERS = {
  ...NEW_ORDERS,
  keys: Array.from({ length: 1_000 }, () => randomUUID()),
}
export const REPLAYS: Traffic = { ...FIRST_ORDERS, isReplay: true, createsOrder: false }
const NO_ORDERS: Traffic = { ...NEW_ORDERS, createsOrder: false }

/** A key for each algorithm. */
const SIGNING_KEYS = createKeys()
/** The file of clients of these keys, and its name in the folder of the service. */
export const CLIENTS = JSON.stringify({
  clients: [{ id: 'shop-1', keys: SIGNING_KEYS.map(({ jwk }) => jwk) }],
})
export const CLIENTS_FILE = 'clients.json'

/** Enough to keep two processes busy, and few enough for short waits. */
export const CONNECTIONS = 64
/** Fewer clients leave Postgres idle; many more wait for each other. */
const PGBENCH_CLIENTS = 32

export const CHART_CONNECTIONS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
export const CHART_PROCESSES = [1, 2]

const DEFAULTS = {
  program: 'service',
  traffic: NEW_ORDERS,
  env: {},
  processes: 1,
  connections: CONNECTIONS,
} as const
const pgbench: Case = {
  ...DEFAULTS,
  name: 'PostgreSQL alone (pgbench)',
  program: 'pgbench',
  connections: PGBENCH_CLIENTS,
}
const bareFastify: Case = {
  ...DEFAULTS,
  name: 'bare Fastify route',
  program: 'bare Fastify',
  traffic: NO_ORDERS,
}
const bareFastify2: Case = { ...bareFastify, processes: 2 }
const newOrders: Case = { ...DEFAULTS, name: 'new orders', reference: pgbench }
const replays: Case = { ...DEFAULTS, name: 'replays', traffic: REPLAYS, reference: bareFastify }
const refused: Case = { ...DEFAULTS, name: 'refused', reference: bareFastify }

/** The rows of the table. */
export const TABLE_CASES: Case[] = [
  newOrders,
  { ...newOrders, processes: 2 },
  { ...newOrders, connections: 1, reference: undefined },
  {
    ...newOrders,
    name: 'new orders, one insert per request',
    env: { INSERT_BATCH_MAX: '1' },
    reference: newOrders,
  },
  ...SIGNING_KEYS.map((signingKey) => ({
    ...newOrders,
    name: `new orders, signed with ${signingKey.algorithm}`,
    traffic: { ...NEW_ORDERS, signingKey },
    env: { CLIENTS_FILE },
    reference: newOrders,
  })),
  pgbench,
  replays,
  { ...replays, processes: 2, reference: bareFastify2 },
  {
    ...refused,
    name: 'refused: over the rate limit (429)',
    traffic: { ...NO_ORDERS, status: 429 },
    // A day: the window must not end during the measurement.
    env: { RATE_LIMIT_MAX: '10', RATE_LIMIT_WINDOW_SECONDS: '86400' },
  },
  {
    ...refused,
    name: 'refused: wrong signature (401)',
    traffic: { ...NO_ORDERS, status: 401, signature: '0'.repeat(64) },
  },
  bareFastify,
  bareFastify2,
]

/** The points of the chart, without those that are rows of the table. */
export const CHART_CASES = CHART_CONNECTIONS.flatMap((connections) =>
  CHART_PROCESSES.map((processes): Case => ({ ...newOrders, processes, connections })),
).filter((point) => !TABLE_CASES.some((row) => describeCase(row) === describeCase(point)))

/** The name with what it does not say; different for each case. */
export function describeCase({ name, program, processes, connections }: Case): string {
  const processText = processes === 1 ? '1 process' : `${processes} processes`
  const connectionText = connections === 1 ? '1 connection' : `${connections} connections`
  return `${name}, ${program === 'pgbench' ? '' : `${processText}, `}${connectionText}`
}
