import { fastifyPlugin } from 'fastify-plugin'

/**
 * Handles the requests that one turn of the event loop has read together, when it ends. So those that
 * ask the stores ask in larger batches; and the answers that need no store go out one right after the
 * other: a client, or a proxy, that sleeps on this machine is woken by the first of them, and waking it
 * takes longer than such an answer.
 */
export const gather = fastifyPlugin(async (app) => {
  let end: Promise<void> | undefined

  app.addHook('preHandler', () => {
    end ??= new Promise((resolve) => {
      setImmediate(() => {
        end = undefined
        resolve()
      })
    })
    return end
  })
})
