import { fastifyPlugin } from 'fastify-plugin'
import type { Outcome } from './idempotent-request.ts'

/** Told of requests, and counts them. */
export interface RequestMetrics {
  /**
   * An answer is on its way.
   *
   * @param route the pattern of its path: what clients make up is `unmatched`
   * @param seconds since its request came
   * @param outcome what became of its key, if it had one
   */
  answered(route: string, status: number, seconds: number, outcome: Outcome | undefined): void
  /** A signed request was beyond the limit. */
  rateLimited(): void
  /** A request was not rightly signed. */
  signatureFailed(): void
}

/**
 * Tells of every answer when it is made, rather than when it has been sent: so those whose client went
 * away count too, and how slowly clients read does not.
 */
export const measure = fastifyPlugin(async (app, { metrics }: { metrics: RequestMetrics }) => {
  app.addHook('onSend', (request, reply, _payload, done) => {
    metrics.answered(
      request.routeOptions.url ?? 'unmatched',
      reply.statusCode,
      reply.elapsedTime / 1000,
      request.idempotency?.outcome,
    )
    done()
  })
})
