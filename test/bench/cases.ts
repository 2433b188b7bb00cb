import { ORDER, sign } from '../support/client.ts'

/** What is measured. */
export interface Case {
  name: string
  kind: Kind
  /** of the service; 0 if there is none */
  processes: number
  connections: number
  /** one of a series over the number of connections */
  sweep: boolean
}

/** What is sent to whom, and what is to come back. */
export interface Recipe {
  program: 'service' | 'bare' | 'pgbench'
  env?: Record<string, string>
  body: string
  signature: string
  /** how many of ten requests take a key that has an order already */
  knownInTen: number
  status: number
  /** whether each new key makes an order */
  creates: boolean
}

const BODY = JSON.stringify(ORDER)
const OTHER_BODY = JSON.stringify({ ...ORDER, amount: ORDER.amount + 1 })
const NEW: Recipe = {
  program: 'service',
  body: BODY,
  signature: sign(BODY),
  knownInTen: 0,
  status: 201,
  creates: true,
}

/** The kinds of cases, in the words of the report. */
export const RECIPES = {
  'new orders': NEW,
  replays: { ...NEW, knownInTen: 10, creates: false },
  '90 % new, 10 % replays': { ...NEW, knownInTen: 1 },
  'used key, other body (409)': {
    ...NEW,
    body: OTHER_BODY,
    signature: sign(OTHER_BODY),
    knownInTen: 10,
    status: 409,
    creates: false,
  },
  'over the limit (429)': {
    ...NEW,
    // A window that does not end in between.
    env: { RATE_LIMIT_MAX: '10', RATE_LIMIT_WINDOW_SECONDS: '86400' },
    status: 429,
    creates: false,
  },
  'wrong signature (401)': {
    ...NEW,
    signature: sign(BODY, 'another secret'),
    status: 401,
    creates: false,
  },
  'one insert per request': { ...NEW, env: { INSERT_BATCH_MAX: '1' } },
  'bare Fastify': { ...NEW, program: 'bare', creates: false },
  'Postgres alone (pgbench)': { ...NEW, program: 'pgbench' },
} satisfies Record<string, Recipe>

export type Kind = keyof typeof RECIPES

/** Fewer clients leave Postgres idle, many more wait for each other. */
export const PGBENCH_CLIENTS = 32

const SWEEP = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]

/** All cases, each one once. @param options `processes`: the larger number of them */
export function listCases(options: {
  processes: number
  connections: number
  sweep: boolean
}): Case[] {
  const { processes, connections } = options
  const both = [1, processes]
  const cases = [
    createCase('Postgres alone (pgbench)', 0, PGBENCH_CLIENTS),
    createCase('one insert per request', 1, connections),
    createCase('one insert per request', 1, 1),
    createCase('new orders', 1, 1),
  ]
  for (const kind of Object.keys(RECIPES) as Kind[]) {
    if (kind === 'one insert per request' || RECIPES[kind].program === 'pgbench') continue
    cases.push(...both.map((count) => createCase(kind, count, connections)))
  }
  if (options.sweep) {
    for (const width of SWEEP) {
      cases.push(...both.map((count) => createCase('new orders', count, width, true)))
    }
  }
  const names = new Set<string>()
  return cases.filter(({ name }) => !names.has(name) && names.add(name))
}

function createCase(kind: Kind, processes: number, connections: number, sweep = false): Case {
  const of = processes === 0 ? [] : [plural(processes, 'process', 'processes')]
  const name = [kind, ...of, plural(connections, 'connection', 'connections')].join(', ')
  return { name, kind, processes, connections, sweep }
}

const plural = (count: number, one: string, many: string) => `${count} ${count === 1 ? one : many}`
