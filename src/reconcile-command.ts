/** The command `order-once reconcile`. */
import { parseArgs } from 'node:util'
import { pino } from 'pino'
import { UsageError } from './client/flags.ts'
import { createProgressBar } from './client/progress-bar.ts'
import { type FoundOrder, type ReconcileOptions, reconcile } from './reconcile.ts'
import { readSettings } from './settings.ts'
import { StartError } from './start-error.ts'
import { prepareStores } from './stores/prepare.ts'

const HELP = `Usage: order-once reconcile [flags]

Lists the orders whose responses Redis remembers, but which Postgres does not have: after a failover
or a restore from a backup that lost commits. It can run while the service runs.

Flags:
  --apply        insert the missing orders as they were: the same id, time, client and key.
                 An order that exists is never changed.
  --since TIME   leave out orders that were created before TIME, such as 2026-11-26T05:00:00Z
  -h, --help     print this help

Exit code:
  0   no order is missing, or all were restored
  1   orders are missing, or their keys have other orders (a conflict: both ids are printed)
  2   wrong usage`

const SUCCESS = 0
const INCOMPLETE = 1
const WRONG_USAGE = 2

/** Its lines would be mixed with the output. */
const SILENT = pino({ level: 'silent' })

type Flags = Pick<ReconcileOptions, 'apply' | 'since'>

/**
 * Runs the command: prints each missing order and a summary on stdout.
 *
 * @returns the exit code
 * @throws {StartError} one line that says what stopped it
 */
export async function runReconcileCommand(args: string[]): Promise<number> {
  let flags: Flags | 'help'
  try {
    flags = readFlags(args)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    console.error(`order-once reconcile: ${error.message}; see order-once reconcile --help`)
    return WRONG_USAGE
  }
  if (flags === 'help') {
    console.log(HELP)
    return SUCCESS
  }
  return (await runReconcile(flags)) ? SUCCESS : INCOMPLETE
}

/**
 * Reads the flags.
 *
 * @returns `'help'` if `--help` is there
 * @throws {UsageError}
 */
function readFlags(args: string[]): Flags | 'help' {
  const options = {
    apply: { type: 'boolean' },
    since: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  } as const
  let flags: ReturnType<typeof parseArgs<{ options: typeof options }>>['values']
  try {
    flags = parseArgs({ args, options }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
  if (flags.help) return 'help'
  const since = flags.since === undefined ? undefined : parseTime(flags.since)
  if (Number.isNaN(since)) {
    throw new UsageError(
      `--since must be a time such as 2026-11-26T05:00:00Z, not "${flags.since}"`,
    )
  }
  return { apply: flags.apply ?? false, since }
}

/**
 * In ms since 1970. NaN for a date that is not in the calendar, and without a time zone: a person and this
 * process may mean different ones.
 */
function parseTime(text: string): number {
  const [, date] = /^(\d{4}-\d\d-\d\d)T.*(?:Z|[+-]\d\d:\d\d)$/.exec(text) ?? []
  // February 30 would be read as March 2.
  const day = new Date(date ?? Number.NaN)
  if (Number.isNaN(day.getTime()) || day.toISOString().slice(0, 10) !== date) return Number.NaN
  return Date.parse(text)
}

/**
 * Runs the reconciliation once, and prints each missing order and a summary.
 *
 * @returns whether Postgres now has all remembered orders
 * @throws {StartError}
 */
async function runReconcile(options: Flags): Promise<boolean> {
  const { stores, close } = await prepareStores(readSettings(), SILENT)
  const { redisUrl } = stores
  // Printed at the end: on a terminal, they would be mixed with the progress bar.
  const lines: string[] = []
  let draw: ((done: number) => void) | undefined
  try {
    if (redisUrl === undefined) {
      throw new StartError('there is no REDIS_URL: nothing remembers what Postgres has lost')
    }
    const { remembered, missing, restored, conflicts, notUnderstood } = await reconcile(
      stores,
      redisUrl,
      {
        ...options,
        onMissing: (found) => void lines.push(describeMissing(found)),
        onProgress: (read, total) => {
          draw ??= createProgressBar(total)
          draw(read)
        },
      },
    )
    lines.push(
      `Remembered orders: ${remembered}. Missing in Postgres: ${missing}. Restored: ${restored}. Conflicts: ${conflicts}. Not understood: ${notUnderstood}.`,
    )
    if (!options.apply && missing > conflicts) lines.push('To restore missing orders, add --apply.')
    return missing === restored
  } catch (error) {
    throw error instanceof StartError ? error : new StartError((error as Error).message)
  } finally {
    for (const line of lines) console.log(line)
    await close()
  }
}

function describeMissing({ order, otherId, isRestored }: FoundOrder): string {
  const { client_id, idempotency_key, id, created_at } = order
  const time = new Date(created_at).toISOString()
  const text = `${id} ${time} client ${client_id} key ${idempotency_key}`
  if (otherId !== undefined) return `conflict ${text}; the key has the order ${otherId}`
  return `${isRestored ? 'restored' : 'missing'} ${text}`
}
