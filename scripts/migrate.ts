/** `npm run db:migrate`: brings the database of the settings to the newest schema, as each start does. */
import { pino } from 'pino'
import { readSettings } from '../src/settings.ts'
import { StartError } from '../src/start-error.ts'
import { prepareStores } from '../src/storage/stores.ts'

try {
  const stores = await prepareStores(readSettings(), pino({ level: 'silent' }))
  await stores.close()
  console.log('The database has the newest schema.')
} catch (error) {
  if (!(error instanceof StartError)) throw error
  console.error(`The database could not be migrated: ${error.message}`)
  process.exitCode = 1
}
