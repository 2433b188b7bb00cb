/** The log: JSON lines; on a terminal, lines for a person. */
import cluster from 'node:cluster'
import { type Logger, pino } from 'pino'
import { createLogDestination } from './log-destination.ts'
import { createRepeatCounter } from './log-repeats.ts'
import type { Settings } from './settings.ts'

/** Creates the logger of a process. On a terminal, it formats each line. */
export async function createLogger({ logLevel }: Pick<Settings, 'logLevel'>): Promise<Logger> {
  const options = {
    level: logLevel,
    base: cluster.isWorker ? { pid: process.pid } : null,
    serializers: { err: describeError },
    hooks: { logMethod: createRepeatCounter() },
  }
  const destination = createLogDestination()
  if (!process.stdout.isTTY) return pino(options, destination)
  const { createTerminalFormatter } = await import('./log-terminal.ts')
  const format = createTerminalFormatter({ colorize: process.stdout.hasColors() })
  return pino(options, { write: (line) => destination.write(format(line)) })
}

/** Leaves out what drivers attach to their errors: it quotes rows and parameters. */
function describeError(error: Error & { code?: string }) {
  const { name, message, code, stack } = error
  return { type: name, message, code, stack }
}
