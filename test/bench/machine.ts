import { arch, availableParallelism, cpus, release, totalmem, type } from 'node:os'
import type { Circumstances } from './results.ts'
import type { Stores } from './stores.ts'

/** Now and here, with so many processes and connections. */
export function describeCircumstances(
  { processes, connections }: Pick<Circumstances, 'processes' | 'connections'>,
  stores: Stores,
): Circumstances {
  return {
    date: new Date().toISOString(),
    machine: {
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      cores: availableParallelism(),
      memory: totalmem(),
      system: `${type()} ${release()} ${arch()}`,
      node: process.versions.node,
      postgres: stores.postgresVersion,
      redis: stores.redisVersion,
    },
    processes,
    connections,
  }
}
