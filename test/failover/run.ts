/**
 * Fails over real servers under load, and checks from outside that no acknowledged order is lost after the
 * reconciliation, and none was created twice. Prints the tables of docs/reliability.md.
 */
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { onInterruption } from '../support/interruption.ts'
import { postgresPrograms } from '../support/postgres-node.ts'
import { type Figures, findMisses, formatTable } from './figures.ts'
import { ROWS } from './rows.ts'
import { runRow } from './run-row.ts'

const USAGE = `usage: npm run test:failover -- [--only TEXT]... [--json FILE]

--only runs the rows whose names have TEXT:
${ROWS.map(({ name }) => `  ${name}`).join('\n')}`

async function main(stop: AbortController): Promise<boolean> {
  const { only, json } = readOptions()
  const chosen = [...ROWS.entries()].filter(
    ([, { name }]) => only.length === 0 || only.some((text) => name.includes(text)),
  )
  if (chosen.length === 0) throw new Error(USAGE)
  const figures: Figures[] = []
  let hasPassed = true
  for (const [index, row] of chosen) {
    if (row.missing !== undefined) {
      console.error(`\nTHE ROW IS LEFT OUT: ${row.name}: this machine lacks ${row.missing}.\n`)
      continue
    }
    console.log(`${row.name} …`)
    const found = await runRow(row, index + 1, stop.signal)
    figures.push(found)
    const misses = findMisses(found)
    for (const miss of misses) console.log(`  FAILED: ${miss}`)
    hasPassed &&= misses.length === 0
  }
  if (figures.length === 0) throw new Error('no row could run')
  console.log(`\n${formatTable(figures)}`)
  if (json) await writeFile(json, `${JSON.stringify(figures, undefined, 2)}\n`)
  return hasPassed
}

function readOptions(): { only: string[]; json: string | undefined } {
  const { values } = parseArgs({
    options: { only: { type: 'string', multiple: true }, json: { type: 'string' } },
  })
  return { only: values.only ?? [], json: values.json }
}

const stop = new AbortController()
onInterruption(() => stop.abort())
if (postgresPrograms === undefined) {
  console.error(
    'There is no pg_basebackup on this machine: install PostgreSQL, such as the Debian package.',
  )
  process.exit(1)
}
try {
  process.exitCode = (await main(stop)) ? 0 : 1
} catch (error) {
  console.error('The run did not finish:', error)
  process.exitCode = 1
}
process.exit() // this also ends processes and removes files
