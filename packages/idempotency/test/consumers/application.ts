// An application that uses the package as any other does: it is compiled and run where the package is
// installed. It prints what the second of two requests gets.
import {
  createMemoryStore,
  errorHandler,
  type IdempotencyStore,
  idempotency,
  NO_SCOPE,
} from '@order-once/idempotency'
import { fastify } from 'fastify'

declare module 'fastify' {
  interface FastifyRequest {
    tenant?: string
  }
}

/** Sends the same request twice. @returns the body of the first response, and the headers of the second */
export async function repeatRequest(store: IdempotencyStore) {
  const app = fastify()
  await app.register(errorHandler, { typeBaseUrl: 'https://example.com/problems/' })
  await app.register(async (payments) => {
    await payments.register(idempotency, {
      store,
      methods: ['post'],
      scope: (request) => request.tenant ?? NO_SCOPE,
      remembers: (statusCode, reply) => statusCode < 300 || reply.hasHeader('x-final'),
      recover: async (_storeKey, _request) => undefined,
      onNotRemembered: (reason) => console.error(reason),
    })
    let runs = 0
    payments.post<{ Body: { amount: number } }>('/payments', async (request, reply) => {
      const { amount } = request.body
      const key: string | undefined = request.idempotency?.storeKey
      return reply.code(201).send({ amount, key, runs: ++runs })
    })
  })
  const send = (body: object) =>
    app.inject({
      method: 'POST',
      url: '/payments',
      payload: body,
      headers: { 'idempotency-key': 'key-1' },
    })
  const first = await send({ amount: 5 })
  let repeat = await send({ amount: 5 })
  // The response is stored after it is sent.
  for (let i = 0; repeat.statusCode === 409 && i < 500; i++) repeat = await send({ amount: 5 })
  const other = await send({ amount: 6 })
  await app.close()
  return {
    first: first.body,
    repeat: repeat.body,
    replayed: repeat.headers['idempotency-replayed'],
    problem: other.json().type,
  }
}

export const TIMES = { leaseMs: 30_000, ttlMs: 3_600_000 }

export const memoryStore = () => createMemoryStore(TIMES)
