import underPressure from '@fastify/under-pressure'
import { fastifyPlugin } from 'fastify-plugin'
import { Problem } from './problem.ts'

/** When turns of the event loop come this late on average, answers are late by several of them. */
const MAX_EVENT_LOOP_DELAY_MS = 1_000
const RETRY_AFTER_SECONDS = '1'

/** Refuses requests at once while the process cannot keep up. The database has a bound of its own. */
export const overload = fastifyPlugin(async (app) => {
  await app.register(underPressure, {
    maxEventLoopDelay: MAX_EVENT_LOOP_DELAY_MS,
    pressureHandler: ({ routeOptions }) => {
      if (!routeOptions.config.alwaysAnswers) throw overloaded()
    },
  })
})

/** The refusal of a request for which there is no room. */
export function overloaded(): Problem {
  return new Problem('overloaded', 'There is more to do than can be finished in time.', {
    headers: { 'retry-after': RETRY_AFTER_SECONDS },
  })
}
