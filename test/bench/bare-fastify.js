import cluster from 'node:cluster'
import { randomUUID } from 'node:crypto'
import { fastify } from 'fastify'

// What the framework alone can do with the same requests: JSON in, JSON out. Plain JavaScript, so
// that nothing but Node and Fastify is measured.
const { PORT, WORKERS } = process.env

if (cluster.isPrimary && Number(WORKERS) > 1) {
  for (let index = 0; index < Number(WORKERS); index++) cluster.fork()
} else {
  const app = fastify()
  app.post('/orders', (request, reply) => {
    const { user_id, item, amount } = request.body
    reply.code(201).send({
      order: {
        id: randomUUID(),
        user_id,
        item,
        amount,
        idempotency_key: request.headers['idempotency-key'],
        created_at: new Date().toISOString(),
      },
    })
  })
  await app.listen({ host: '127.0.0.1', port: Number(PORT) })
}
