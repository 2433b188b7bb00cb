// Inserts orders with pgbench, one row in each statement: what PostgreSQL does without the service.
import { execFile, spawnSync } from 'node:child_process'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { percentile } from './statistics.ts'

const THREADS = 2

/** The service's own insert for a batch of one, with values like its own. */
const SCRIPT = `INSERT INTO orders (id, user_id, item, amount, idempotency_key, request_fingerprint)
VALUES (uuidv7(), 'user-1', 'book', '500', gen_random_uuid()::text,
  'v1:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef')
ON CONFLICT DO NOTHING RETURNING id, created_at;
`

/** @throws if pgbench is not installed */
export function findPgbench(): string {
  // Debian keeps the programs of each version outside the PATH.
  const find = 'command -v pgbench || ls /usr/lib/postgresql/*/bin/pgbench'
  const [found] = spawnSync('sh', ['-c', find], { encoding: 'utf8' }).stdout.split('\n')
  if (!found) throw new Error('pgbench was not found: install it, or add its folder to the PATH')
  return found
}

/** @param databaseUrl of a database with the service's tables */
export async function runPgbench(
  databaseUrl: string,
  folder: string,
  clients: number,
  seconds: number,
) {
  const { hostname, port, username, password, pathname } = new URL(databaseUrl)
  await writeFile(join(folder, 'insert.sql'), SCRIPT)
  const args = [
    ...['--host', hostname, '--port', port, '--username', username],
    ...['--client', `${clients}`, '--jobs', `${THREADS}`, '--time', `${seconds}`],
    ...['--protocol', 'prepared', '--no-vacuum', '--file', 'insert.sql', '--log'],
    pathname.slice(1),
  ]
  const env = { PATH: process.env.PATH, PGPASSWORD: password }
  const { stdout } = await promisify(execFile)(findPgbench(), args, { cwd: folder, env })
  // Each thread writes a log, whose third column is the latency in µs.
  const logs = (await readdir(folder)).filter((name) => name.startsWith('pgbench_log.'))
  const texts = await Promise.all(logs.map((name) => readFile(join(folder, name), 'utf8')))
  for (const name of logs) await rm(join(folder, name))
  const lines = texts.flatMap((text) => text.trimEnd().split('\n'))
  const latenciesMs = lines.map((line) => Number(line.split(' ')[2]) / 1000)
  return {
    requests: lines.length,
    rate: Number(/tps = ([\d.]+)/.exec(stdout)?.[1]),
    p50Ms: percentile(latenciesMs, 0.5),
    p99Ms: percentile(latenciesMs, 0.99),
  }
}
