/** The commands of the binary. */
import { pino } from 'pino'
import { cleanUp } from './clean-up.ts'
import { runOrderCommand } from './client/command.ts'
import { readSettings } from './settings.ts'
import { StartError } from './start-error.ts'
import { prepareStores } from './stores/prepare.ts'

const HELP = `order-once creates an order exactly once, however often its request is repeated.

  order-once serve      serves requests until SIGTERM or Ctrl-C
  order-once migrate    applies pending migrations, as each start does
  order-once cleanup    releases old keys and deletes expired records, as the service does hourly
  order-once order      sends an order to a service; --help shows how

The settings come from the environment and from .env: see .env.example.`

const SUCCESS = 0
const FAILURE = 1
const WRONG_USAGE = 2

/** Nothing of interest happens in the stores while a command runs. */
const SILENT = pino({ level: 'silent' })

/**
 * Runs a command. Results go to stdout; what stopped it, in one line, to stderr.
 *
 * @returns the exit code: 0, 1 after a failure, 2 after wrong usage. `serve` goes on after it returns
 */
export async function runCommand([name, ...args]: string[]): Promise<number> {
  switch (name) {
    case 'serve':
      return reportStartErrors('order-once cannot start', async () => {
        const { serve } = await import('./serve.ts')
        await serve()
      })
    case 'migrate':
      return reportStartErrors('the database could not be migrated', migrate)
    case 'cleanup':
      return reportStartErrors('nothing was cleaned up', runCleanUp)
    case 'order':
      return runOrderCommand(args)
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

async function reportStartErrors(subject: string, command: () => Promise<void>): Promise<number> {
  try {
    await command()
    return SUCCESS
  } catch (error) {
    if (!(error instanceof StartError)) throw error
    console.error(`${subject}: ${error.message}`)
    return FAILURE
  }
}

async function migrate(): Promise<void> {
  const { close } = await prepareStores(readSettings(), SILENT)
  await close()
  console.log('The database is up to date.')
}

async function runCleanUp(): Promise<void> {
  const settings = readSettings()
  const { stores, close } = await prepareStores(settings, SILENT)
  const report = await cleanUp(stores.databaseUrl, settings).finally(close)
  if (report === undefined) {
    console.log('Another instance is cleaning up; nothing was done.')
    return
  }
  const { releasedKeys, deletedRecords } = report
  const days = settings.keyRetentionDays
  console.log(
    days === 0
      ? 'Keys are kept for ever (KEY_RETENTION_DAYS is 0).'
      : `Released the keys of ${releasedKeys} orders older than ${days} days.`,
  )
  console.log(`Deleted ${deletedRecords} expired idempotency records.`)
}
