/** Commands for the database: `migrate` and `cleanup`. */
import { pino } from 'pino'
import { cleanUp } from './clean-up.ts'
import { readSettings } from './settings.ts'
import { StartError } from './start-error.ts'
import { prepareStores } from './stores/prepare.ts'

/** Nothing of interest happens in the stores while a command runs. */
const SILENT = pino({ level: 'silent' })

/** Applies pending migrations to the database of the settings. @throws {StartError} */
export async function migrate(): Promise<void> {
  const { close } = await prepareStores(readSettings(), SILENT)
  await close()
  console.log('The database is up to date.')
}

/** A command ends with one line, whatever failed. */
function fail(error: unknown): never {
  throw new StartError(error instanceof Error ? error.message : String(error))
}

/** Runs the clean-up once, and prints what it did. @throws {StartError} */
export async function cleanUpOnce(): Promise<void> {
  const settings = readSettings()
  const { stores, close } = await prepareStores(settings, SILENT)
  const report = await cleanUp(stores, settings).catch(fail).finally(close)
  const { releasedKeys, deletedRecords } = report
  const days = settings.keyRetentionDays
  console.log(
    days === 0
      ? 'Keys are kept for ever (KEY_RETENTION_DAYS is 0).'
      : `Released keys of orders older than ${days} days: ${releasedKeys}.`,
  )
  console.log(`Deleted expired idempotency records: ${deletedRecords}.`)
}
