import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { disown, own } from '../faults/owned-processes.ts'
import type { Case } from './cases.ts'
import { cpuPerRequest } from './cpu-time.ts'
import { cpuOfEndedChildren } from './process-tree.ts'
import type { Run } from './results.ts'
import type { World } from './world.ts'

/** Where Debian keeps it, off the PATH. */
const DEBIAN = '/usr/lib/postgresql'

const THREADS = 2
const WARM_UP_SECONDS = 2

/** The service's own statement, with values like its own. */
const SCRIPT = `INSERT INTO orders (id, user_id, item, amount, idempotency_key, request_fingerprint)
VALUES (uuidv7(), 'user-1', 'book', '500', gen_random_uuid()::text,
  'v1:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef')
ON CONFLICT (idempotency_key) DO NOTHING RETURNING *;
`

/** The program pgbench, from the PATH or from where Debian keeps it; undefined if there is none. */
export const pgbench = ['pgbench', ...installed()].find(
  (program) => spawnSync(program, ['--version']).status === 0,
)

/** Has pgbench insert orders, without any service. */
export async function measurePgbench(
  plan: Case,
  round: number,
  seconds: number,
  world: World,
): Promise<Run> {
  const { stores } = world
  await runPgbench(plan.connections, WARM_UP_SECONDS, world)
  await stores.empty()
  await stores.settle()
  const cpu = () => ({ ...stores.cpu(), load: cpuOfEndedChildren() })
  const before = cpu()
  const output = await runPgbench(plan.connections, seconds, world)
  const after = cpu()
  const requests = figure(output, /transactions actually processed: (\d+)/)
  const rows = await stores.countOrders()
  return {
    ...plan,
    round,
    requests,
    perSecond: figure(output, /tps = ([\d.]+)/),
    p50: null,
    p99: null,
    mean: figure(output, /latency average = ([\d.]+) ms/),
    cpu: { service: null, ...cpuPerRequest(before, after, requests), redis: null },
    memory: [],
    faults: rows === requests ? [] : [`${requests} orders expected, Postgres has ${rows}`],
  }
}

async function runPgbench(clients: number, seconds: number, world: World): Promise<string> {
  if (pgbench === undefined) throw new Error('there is no pgbench')
  const { hostname, port, username, password, pathname } = new URL(world.stores.databaseUrl)
  const script = join(world.folder, 'pgbench.sql')
  await writeFile(script, SCRIPT)
  const child = spawn(
    pgbench,
    [
      ...['--host', hostname, '--port', port, '--username', username],
      ...['--client', `${clients}`, '--jobs', `${THREADS}`, '--time', `${seconds}`],
      ...['--protocol', 'prepared', '--no-vacuum', '--file', script],
      pathname.slice(1),
    ],
    {
      env: { PATH: process.env.PATH, PGPASSWORD: password },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  const pid = child.pid as number
  own(pid)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk
    })
  }
  const [code] = await once(child, 'close')
  disown(pid)
  if (code !== 0) throw new Error(`pgbench ended with ${code}: ${output}`)
  return output
}

function installed(): string[] {
  try {
    return readdirSync(DEBIAN).map((version) => join(DEBIAN, version, 'bin/pgbench'))
  } catch {
    return []
  }
}

function figure(output: string, pattern: RegExp): number {
  const found = pattern.exec(output)?.[1]
  if (found === undefined) throw new Error(`pgbench said something else: ${output}`)
  return Number(found)
}
