// Idempotency for another Fastify application: refunds, for several merchants, that happen once.
// Run it with `npm run build && node docs/examples/refunds.js`.

import { createMemoryStore, errorHandler, idempotency } from '@order-once/idempotency'
import Fastify from 'fastify'

const app = Fastify()
await app.register(errorHandler) // answers refusals as problem documents (RFC 9457)

await app.register(async (protectedRoutes) => {
  await protectedRoutes.register(idempotency, {
    // One process; createRedisStore(ioredis, …) or createPostgresStore(drizzle, …) for several.
    store: createMemoryStore({ leaseMs: 30_000, ttlMs: 86_400_000 }),
    // Two merchants may choose the same key.
    scope: (request) => String(request.headers['x-merchant'] ?? ''),
    // A duplicate waits up to two seconds for the request ahead of it.
    waitMs: 2_000,
  })

  let refunds = 0
  protectedRoutes.post('/payments/:payment/refunds', async (request, reply) => {
    refunds++
    return reply
      .code(201)
      .send({ refund: refunds, payment: request.params.payment, ...request.body })
  })
})

console.log(await app.listen({ port: Number(process.env.PORT ?? 3000) }))
