/** Listens on a port, with errors that name the setting. */
import type { FastifyInstance, FastifyListenOptions } from 'fastify'
import { StartError } from '../start-error.ts'

interface ListenSettings {
  host: string
  port: number
  hostSetting: string
  portSetting: string
}

/**
 * Listens on a port.
 *
 * @param options `hostSetting`, `portSetting`: the names of the settings that have the address and the port
 * @throws {StartError} if it cannot be listened on
 */
export async function listen(
  server: Pick<FastifyInstance, 'listen'>,
  options: FastifyListenOptions & ListenSettings,
): Promise<void> {
  try {
    await server.listen(options)
  } catch (error) {
    throw new StartError(explainFailure(error as NodeJS.ErrnoException, options))
  }
}

function explainFailure(
  error: NodeJS.ErrnoException,
  { host, port, hostSetting, portSetting }: ListenSettings,
): string {
  switch (error.code) {
    case 'EADDRINUSE':
      return `port ${port} on ${host} is in use: stop the program that uses it, or set ${portSetting} to another port`
    case 'EACCES':
      return `port ${port} on ${host} is not allowed for this user: set ${portSetting} to 1024 or more`
    default:
      return `cannot listen on ${hostSetting} ${host} and ${portSetting} ${port}: ${error.message}`
  }
}
