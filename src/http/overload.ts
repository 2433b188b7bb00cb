/** Refuses requests while the process cannot handle them in time. The database has a bound of its own. */
import underPressure from '@fastify/under-pressure'
import { fastifyPlugin } from 'fastify-plugin'
import { problems } from './problems.ts'

/** When the event loop is this late on average, responses are late by several times as much. */
const MAX_EVENT_LOOP_DELAY_MS = 1_000

export const overload = fastifyPlugin(
  async (app) => {
    await app.register(underPressure, {
      maxEventLoopDelay: MAX_EVENT_LOOP_DELAY_MS,
      pressureHandler: ({ routeOptions }) => {
        if (!routeOptions.config.isAlwaysServed) throw problems.overloaded()
      },
    })
  },
  { name: 'overload', dependencies: ['error-handler'] },
)
