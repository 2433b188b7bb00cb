/** Groups the requests that one turn of the event loop has read. */
import { fastifyPlugin } from 'fastify-plugin'

/**
 * Continues the requests of one turn of the event loop together, at its end. Their calls to the stores
 * then share larger batches, and responses that need no store are written one after the other, which
 * wakes up a local client or proxy only once. See docs/performance.md.
 */
export const groupRequestsByTick = fastifyPlugin(
  async (app) => {
    let endOfTick: Promise<void> | undefined

    app.addHook('preHandler', function groupRequestsByTick() {
      endOfTick ??= new Promise((resolve) => {
        setImmediate(() => {
          endOfTick = undefined
          resolve()
        })
      })
      return endOfTick
    })
  },
  { name: 'group-requests' },
)
