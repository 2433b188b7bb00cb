import closeWithGrace from 'close-with-grace'
import { type Logger, pino } from 'pino'
import { buildApp } from './app.ts'
import { cleanUp, scheduleCleanUp } from './clean-up.ts'
import { createOrdersRepository } from './orders/orders-repository.ts'
import { readSettings, type Settings } from './settings.ts'
import { StartError } from './start-error.ts'
import { createIdempotencyStore } from './storage/idempotency-store.ts'
import { openStores } from './storage/stores.ts'

/** Requests at work have this long to finish before the process ends without them. */
const CLOSE_DELAY_MS = 10_000

try {
  const settings = readSettings()
  const logger = await createLogger(settings)
  const starting = start(settings, logger)
  closeWithGrace({ delay: CLOSE_DELAY_MS, logger }, async ({ signal, err }) => {
    if (err) logger.fatal({ err }, 'closing after an unexpected error')
    else logger.info(`closing on ${signal ?? 'idleness'}: finishing the requests at work`)
    const close = await starting
    await close()
    logger.info('closed')
  })
  await starting
} catch (error) {
  if (!(error instanceof StartError)) throw error
  process.stderr.write(`order-once cannot start: ${error.message}\n`)
  process.exit(1)
}

/**
 * Opens the stores, builds the app and listens.
 *
 * @returns what closes it all again: first the app, which finishes its requests, then the stores
 * @throws {StartError} after closing what was open already
 */
async function start(settings: Settings, logger: Logger): Promise<() => Promise<void>> {
  const stores = await openStores(settings, logger)
  try {
    const { databaseUrl, postgres, redis } = stores
    const app = await buildApp({
      settings,
      logger,
      orders: createOrdersRepository(postgres, { maxBatch: settings.maxInsertBatch }),
      idempotencyStore: createIdempotencyStore(settings, stores, logger),
      redis,
    })
    await app
      .listen({
        host: settings.host,
        port: settings.port,
        listenTextResolver: (address) => `order-once listens on ${address}`,
      })
      .catch((error) => {
        throw new StartError(listenFailure(error, settings))
      })
    const stopCleaning = scheduleCleanUp((signal) => cleanUp(databaseUrl, settings, signal), logger)
    return async () => {
      await app.close()
      await stopCleaning()
      await stores.close()
    }
  } catch (error) {
    await stores.close()
    throw error
  }
}

/** JSON lines; on a terminal, lines for a person. */
async function createLogger(settings: Settings): Promise<Logger> {
  const options = {
    level: settings.logLevel,
    base: null,
    serializers: { err: describeError },
  }
  if (!process.stdout.isTTY) return pino(options)
  const { default: pretty } = await import('pino-pretty')
  return pino(options, pretty({ translateTime: 'HH:MM:ss', sync: true }))
}

/** Leaves out what drivers attach to their errors: it quotes rows and parameters. */
function describeError(error: Error & { code?: string }) {
  const { name, message, code, stack } = error
  return { type: name, message, code, stack }
}

function listenFailure(error: NodeJS.ErrnoException, { host, port }: Settings): string {
  switch (error.code) {
    case 'EADDRINUSE':
      return `port ${port} on ${host} is in use: stop what runs there, or set PORT to another`
    case 'EACCES':
      return `port ${port} on ${host} may not be used by this user: set PORT to 1024 or more`
    default:
      return `HOST ${host} and PORT ${port} cannot be listened on: ${error.message}`
  }
}
