import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LoadGenerator } from './load-generator.ts'
import { type Service, startService } from './service.ts'
import { openStores, type Stores } from './stores.ts'

/** No limit stands in the way, and no line is logged per request. */
const SERVICE_ENV = {
  RATE_LIMIT_MAX: '1000000000',
  SIGNATURE_FAILURES_MAX: '1000000000',
  LOG_LEVEL: 'warn',
}

/** All that takes part but the service, which each case starts anew. */
export interface World {
  stores: Stores
  load: LoadGenerator
  folder: string
  /** Starts the service on the stores. */
  startService(processes: number, env?: Record<string, string>): Promise<Service>
  /** Ends all processes and removes their files. */
  close(): Promise<void>
}

/** Starts the stores and the load generator. */
export async function openWorld(): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), 'order-once-bench-'))
  const remove = () => rm(folder, { recursive: true, force: true })
  try {
    const stores = await openStores(folder)
    const load = new LoadGenerator()
    return {
      stores,
      load,
      folder,
      startService: (processes, env = {}) =>
        startService('service', {
          folder,
          processes,
          env: {
            ...SERVICE_ENV,
            DATABASE_URL: stores.databaseUrl,
            REDIS_URL: stores.redisUrl,
            ...env,
          },
        }),
      close: async () => {
        await load.close()
        await stores.close()
        await remove()
      },
    }
  } catch (error) {
    await remove()
    throw error
  }
}
