/** The commands of the binary. */
import { APPLICATION } from './application.ts'
import { readEnvFile } from './env-file.ts'
import { StartError } from './start-error.ts'

const HELP = `order-once creates an order exactly once, however often its request is repeated.

  order-once serve      serves requests until SIGTERM or Ctrl-C
  order-once migrate    applies pending migrations, as each start does
  order-once cleanup    releases old keys and deletes expired records, as the service does hourly
  order-once reconcile  lists, or restores, orders that Postgres has lost; --help shows how
  order-once order      sends a signed order; --help shows how
  order-once keygen     makes a key with which a client signs; --help shows how
  order-once --version  prints the version

The settings come from the environment and from .env: see .env.example.`

const SUCCESS = 0
const FAILURE = 1
const WRONG_USAGE = 2

/**
 * Runs a command, and waits until its output is written. Results go to stdout; what stopped it, in one line, to
 * stderr.
 *
 * @returns the exit code: 0, 1 after a failure, 2 after wrong usage. `serve` goes on after it returns
 */
export async function runCommand(args: string[]): Promise<number> {
  if (isLogged(args[0])) return dispatchCommand(args)
  let outputError: Error | undefined
  process.stdout.on('error', (error) => {
    outputError ??= error
  })
  const exitCode = await dispatchCommand(args)
  // The exit of a process cuts what its pipe has not taken yet.
  await new Promise((resolve) => process.stdout.write('', resolve))
  if (outputError === undefined) return exitCode
  console.error(`order-once: the output could not be written: ${outputError.message}`)
  return exitCode || FAILURE
}

/** Whether the output of a command is a log, whose failures never stop it. Such a command takes no arguments. */
const isLogged = (name: string | undefined) =>
  name === 'serve' || name === 'migrate' || name === 'cleanup'

/** Runs a command; each loads only what it needs. */
async function dispatchCommand([name, ...args]: string[]): Promise<number> {
  if (isLogged(name)) {
    if (args.includes('--help') || args.includes('-h')) return dispatchCommand(['--help'])
    if (args.length > 0) {
      console.error(`order-once ${name} takes no arguments, but settings: see order-once --help`)
      return WRONG_USAGE
    }
  }
  switch (name) {
    case 'serve': {
      const { serve } = await import('./serve.ts')
      return reportStartErrors('order-once cannot start', serve)
    }
    case 'migrate': {
      const { migrate } = await import('./maintenance.ts')
      return reportStartErrors('order-once migrate failed', migrate)
    }
    case 'cleanup': {
      const { cleanUpOnce } = await import('./maintenance.ts')
      return reportStartErrors('the clean-up did not end', cleanUpOnce)
    }
    case 'reconcile': {
      const { runReconcileCommand } = await import('./reconcile-command.ts')
      return reportStartErrors('the reconciliation did not end', () => runReconcileCommand(args))
    }
    case 'order': {
      const { runOrderCommand } = await import('./client/command.ts')
      return reportStartErrors('no order was sent', () => {
        const isHelp = args.includes('--help') || args.includes('-h')
        const settings = isHelp ? {} : readEnvFile('.env')
        return runOrderCommand(args, { ...settings, ...process.env })
      })
    }
    case 'keygen': {
      const { runKeygenCommand } = await import('./clients/keygen.ts')
      return runKeygenCommand(args)
    }
    case '--version':
      console.log(APPLICATION.version)
      return SUCCESS
    case '--help':
    case '-h':
      console.log(HELP)
      return SUCCESS
    case undefined:
      console.error(HELP)
      return WRONG_USAGE
    default:
      console.error(`order-once: unknown command "${name}"; see order-once --help`)
      return WRONG_USAGE
  }
}

/** @returns the exit code: that of the command, if it has one */
async function reportStartErrors(
  subject: string,
  command: () => Promise<number> | Promise<void>,
): Promise<number> {
  try {
    return (await command()) ?? SUCCESS
  } catch (error) {
    if (!(error instanceof StartError)) throw error
    console.error(`${subject}: ${error.message}`)
    return FAILURE
  }
}
