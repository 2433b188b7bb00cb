/** The clients of the service, read again whenever their file changes. */
import { NO_SCOPE } from '@order-once/idempotency'
import type { FastifyBaseLogger, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import { Counter } from 'prom-client'
import type { StartError } from '../start-error.ts'
import {
  type Client,
  type ClientKey,
  type Clients,
  DEFAULT_CLIENT_ID,
  parseClients,
  readClientsFile,
} from './clients-file.ts'

declare module 'fastify' {
  interface FastifyInstance {
    clients: ClientDirectory
  }
  interface FastifyRequest {
    /** who signed the request; null until the signature is verified */
    client: Client | null
  }
}

/** The clients as they are now. */
export interface ClientDirectory {
  /** whether there is a file of clients, so that they sign with keys of their own */
  hasFile: boolean
  findKey(keyid: string): ClientKey | undefined
  /** the client of `X-Signature` */
  getDefaultClient(): Client
}

/** @throws if the request is not behind the hook that verifies its signature */
export function getClient({ client }: FastifyRequest): Client {
  if (client === null) throw new Error('the signature of the request was not verified')
  return client
}

/** Returns what the idempotency key of a request belongs to. The keys of the default client have no scope. */
export function getKeyScope(request: FastifyRequest): string | typeof NO_SCOPE {
  const { id } = getClient(request)
  return id === DEFAULT_CLIENT_ID ? NO_SCOPE : id
}

/** A changed file is in force within 5 s: one interval, and the time to read and parse it. */
const POLL_INTERVAL_MS = 2_000

const NO_CLIENTS: Clients = { byId: new Map(), keys: new Map() }
const DEFAULT_CLIENT: Client = { id: DEFAULT_CLIENT_ID, rateLimitMax: undefined }

/**
 * Decorates the app with `clients`, and each request with `client`. Reads the file again when its content
 * changes, and on SIGHUP. A file that cannot be read or breaks a rule never comes into force.
 *
 * @param options `file`: the path; undefined: there are no clients but the default one
 * @throws {StartError} one line, if the file cannot be read or breaks a rule
 */
export const clients = fastifyPlugin(
  async (app, { file }: { file: string | undefined }) => {
    app.decorateRequest('client', null)
    const reloads = new Counter({
      name: 'order_once_clients_reloads_total',
      help: 'How often CLIENTS_FILE was read again after a change or SIGHUP, by result',
      labelNames: ['result'],
      registers: [app.metrics.registry],
    })
    for (const result of ['ok', 'failed'] as const) reloads.inc({ result }, 0)
    const directory =
      file === undefined
        ? { read: () => NO_CLIENTS, close: () => {} }
        : await watchClientsFile(file, app.log, (result) => reloads.inc({ result }))
    app.addHook('onClose', async () => directory.close())
    app.decorate('clients', {
      hasFile: file !== undefined,
      findKey: (keyid) => directory.read().keys.get(keyid),
      getDefaultClient: () => directory.read().byId.get(DEFAULT_CLIENT_ID) ?? DEFAULT_CLIENT,
    })
  },
  { name: 'clients', dependencies: ['metrics'] },
)

/**
 * Reads the file, and again after each change of its content. (Not with `fs.watch`: it loses a file that is
 * replaced, or whose folder is reached by a symbolic link.)
 *
 * @param onReload called each time that it was read again
 * @returns `read`: the clients that are in force
 * @throws {StartError}
 */
async function watchClientsFile(
  path: string,
  log: FastifyBaseLogger,
  onReload: (result: 'ok' | 'failed') => void,
) {
  /** what was found last: the text of the file, or why it could not be read */
  let found = await readClientsFile(path)
  let clients = parseClients(found)
  log.info(`clients are read from ${path}: ${describe(clients)}`)

  async function reload(isForced: boolean): Promise<void> {
    const read = await readClientsFile(path).catch((error: StartError) => error)
    const text = typeof read === 'string' ? read : read.message
    if (text === found && !isForced) return
    found = text
    try {
      if (typeof read !== 'string') throw read
      clients = parseClients(read)
    } catch (error) {
      onReload('failed')
      log.error(`${(error as Error).message}; the clients that were read before stay in force`)
      return
    }
    onReload('ok')
    log.info(`clients were read again from ${path}: ${describe(clients)}`)
  }

  // One at a time: an older reading must not replace a newer one.
  let reloading = Promise.resolve()
  const enqueue = (isForced: boolean) => {
    reloading = reloading.then(() => reload(isForced))
  }
  const timer = setInterval(enqueue, POLL_INTERVAL_MS, false).unref()
  const onSignal = () => enqueue(true)
  process.on('SIGHUP', onSignal)

  return {
    read: () => clients,
    close: () => {
      clearInterval(timer)
      process.off('SIGHUP', onSignal)
    },
  }
}

const describe = ({ byId, keys }: Clients) => `${byId.size} clients with ${keys.size} keys`
