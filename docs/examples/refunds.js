// Idempotency in another Fastify application: each refund of several merchants happens once.
// Run it with `npm run build && node docs/examples/refunds.js`.

import { createMemoryStore, errorHandler, idempotency } from '@order-once/idempotency'
import Fastify from 'fastify'

const app = Fastify()
await app.register(errorHandler) // sends refusals as problem documents (RFC 9457)

await app.register(async (protectedRoutes) => {
  await protectedRoutes.register(idempotency, {
    // For one process. For several: createRedisStore(ioredis, …) or createPostgresStore(runQuery, …).
    store: createMemoryStore({ leaseMs: 30_000, ttlMs: 86_400_000 }),
    // Two merchants may choose the same key.
    scope: (request) => String(request.headers['x-merchant'] ?? ''),
    // A duplicate waits up to two seconds for the first request.
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
