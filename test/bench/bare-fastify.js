// The reference for replays and refusals: a Fastify route that answers the same requests with an order
// that it does not keep. Plain JavaScript, so that only Node and Fastify are measured.
import cluster from 'node:cluster'
import { randomUUID } from 'node:crypto'
import { fastify } from 'fastify'

const { PORT, WORKERS } = process.env

if (cluster.isPrimary && Number(WORKERS) > 1) {
  for (let index = 0; index < Number(WORKERS); index++) cluster.fork()
} else {
  const app = fastify()
  app.post('/orders', ({ body, headers }, reply) => {
    const idempotency_key = headers['idempotency-key']
    const created_at = new Date().toISOString()
    reply.code(201).send({ order: { id: randomUUID(), ...body, idempotency_key, created_at } })
  })
  await app.listen({ host: '127.0.0.1', port: Number(PORT) })
}
