/** Listens on a port, with errors that name the setting. */
import type { FastifyInstance, FastifyListenOptions } from 'fastify'
import { StartError } from '../start-error.ts'

/**
 * Listens on a port.
 *
 * @param options `portSetting`: the name of the setting that has the port
 * @throws {StartError} if it cannot be listened on
 */
export async function listen(
  server: Pick<FastifyInstance, 'listen'>,
  options: FastifyListenOptions & { host: string; port: number; portSetting: string },
): Promise<void> {
  const { host, port, portSetting } = options
  try {
    await server.listen(options)
  } catch (error) {
    throw new StartError(explainFailure(error as NodeJS.ErrnoException, host, port, portSetting))
  }
}

function explainFailure(
  error: NodeJS.ErrnoException,
  host: string,
  port: number,
  portSetting: string,
): string {
  switch (error.code) {
    case 'EADDRINUSE':
      return `port ${port} on ${host} is in use: stop the program that uses it, or set ${portSetting} to another port`
    case 'EACCES':
      return `port ${port} on ${host} is not allowed for this user: set ${portSetting} to 1024 or more`
    default:
      return `cannot listen on HOST ${host} and ${portSetting} ${port}: ${error.message}`
  }
}
