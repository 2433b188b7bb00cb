/** An application whose routes the plugin protects. */
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify'
import { onTestFinished } from 'vitest'
import {
  createMemoryStore,
  errorHandler,
  type IdempotencyOptions,
  idempotency,
} from '../../src/index.ts'

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

export const LEASE_MS = 30_000

export const memoryStore = (options: { now?: () => number; replayedHeaders?: string[] } = {}) =>
  createMemoryStore({ leaseMs: LEASE_MS, ttlMs: 86_400_000, ...options })

export interface TestApp {
  app: FastifyInstance
  /** how often the handler has run */
  runs: () => number
  /** the messages in the log, from level warn on */
  warnings: string[]
}

/** Creates the application; it closes when the test ends. */
export async function createApp(
  handler: Handler,
  options: Partial<IdempotencyOptions> = {},
): Promise<TestApp> {
  let runs = 0
  const warnings: string[] = []
  const stream = { write: (line: string) => void warnings.push(JSON.parse(line).msg) }
  const app = fastify({ logger: { level: 'warn', stream } })
  await app.register(errorHandler)
  await app.register(idempotency, { store: memoryStore(), ...options })
  app.route({
    method: ['GET', 'POST', 'PUT'],
    url: '/things/:id',
    handler: (request, reply) => {
      runs++
      return handler(request, reply)
    },
  })
  app.post('/others/:id', () => ({ other: true }))
  onTestFinished(() => app.close())
  return { app, runs: () => runs, warnings }
}

/** Sends a request under the key `key`. */
export const post = (
  app: FastifyInstance,
  body: object = { a: 1 },
  headers: Record<string, string> = {},
) =>
  app.inject({
    method: 'POST',
    url: '/things/1',
    payload: body,
    headers: { 'idempotency-key': 'key', ...headers },
  })
