/** `npm run cleanup`: releases old keys and deletes expired records once, as the service does hourly. */
import { pino } from 'pino'
import { cleanUp } from '../src/clean-up.ts'
import { readSettings } from '../src/settings.ts'
import { StartError } from '../src/start-error.ts'
import { prepareStores } from '../src/storage/stores.ts'

try {
  const settings = readSettings()
  const stores = await prepareStores(settings, pino({ level: 'silent' }))
  const report = await cleanUp(stores.databaseUrl, settings).finally(() => stores.close())
  if (report === undefined) console.log('Another instance is cleaning up; nothing was done.')
  else {
    const { releasedKeys, deletedRecords } = report
    const age = settings.keyRetentionDays
    console.log(
      age === 0
        ? 'Keys are kept for ever (KEY_RETENTION_DAYS is 0).'
        : `Released the keys of ${releasedKeys} orders older than ${age} days.`,
    )
    console.log(`Deleted ${deletedRecords} expired idempotency records.`)
  }
} catch (error) {
  if (!(error instanceof StartError)) throw error
  console.error(`Nothing was cleaned up: ${error.message}`)
  process.exitCode = 1
}
