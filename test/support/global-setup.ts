/** Builds the service, whose processes some tests start, and starts the servers that the tests share. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { TestProject } from 'vitest/node'
import { chromiumPath } from './chromium.ts'
import { hasCurl, hasGo, hasPython, hasPythonCryptography } from './languages.ts'
import { hasPatroni } from './patroni.ts'
import { pgbouncerProgram } from './pgbouncer.ts'
import { postgresPrograms } from './postgres-node.ts'
import { redisServer } from './private-redis.ts'
import { hasPromtool } from './promtool.ts'
import type { Servers } from './servers.ts'
import { hasSystemdAnalyze } from './systemd-analyze.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** a Postgres for the tests alone; every test file makes a database of its own in it */
    postgresUrl: string
    /** a Redis in which each test file has a database of its own; '' if there is none */
    redisUrl: string
  }
}

export default async function setup(project: TestProject) {
  build()
  project.onTestsRerun(async () => build())
  const { servers, stop } = await startServers()
  if (chromiumPath === undefined) {
    reportMissing('THE TESTS IN A BROWSER ARE LEFT OUT: no chromium in /usr/bin, no CHROMIUM_PATH.')
  }
  if (!hasPromtool) {
    reportMissing('THE CHECKS OF METRICS AND ALERTS ARE LEFT OUT: no promtool on the PATH.')
  }
  if (postgresPrograms === undefined) {
    reportMissing(
      'THE TESTS WITH A STANDBY OF POSTGRES ARE LEFT OUT: no pg_basebackup on this machine.',
    )
  }
  if (pgbouncerProgram === undefined) {
    reportMissing(
      'THE TESTS WITH PGBOUNCER ARE LEFT OUT: no pgbouncer on the PATH or in /usr/sbin.',
    )
  }
  if (redisServer === undefined) {
    reportMissing(
      'THE TESTS THAT STOP A REDIS ARE LEFT OUT: no redis-server or valkey-server on the PATH.',
    )
  }
  if (servers.redisUrl === undefined) {
    reportMissing('THE TESTS ON REDIS ARE LEFT OUT: no TEST_REDIS_URL, no redis-server, no Docker.')
  }
  if (!hasSystemdAnalyze) {
    reportMissing('THE CHECK OF THE SYSTEMD UNIT IS LEFT OUT: no systemd-analyze on the PATH.')
  }
  if (!hasPatroni) {
    reportMissing('THE CHECK OF THE FILES OF PATRONI IS LEFT OUT: no patroni, etcd or haproxy.')
  }
  if (!hasCurl) {
    reportMissing('THE CLIENT WITH CURL IS NOT TESTED: no curl or no openssl on the PATH.')
  }
  if (!hasPython) reportMissing('THE CLIENT IN PYTHON IS NOT TESTED: no python3 on the PATH.')
  else if (!hasPythonCryptography) {
    report('THE CLIENT IN PYTHON IS NOT TESTED WITH ED25519: python3 has no package cryptography.')
  }
  if (!hasGo) report('THE CLIENT IN GO IS NOT TESTED: no go on the PATH.')
  process.env.TMPDIR = servers.folder // also of the processes that run the tests
  project.provide('postgresUrl', servers.postgresUrl)
  project.provide('redisUrl', servers.redisUrl ?? '')
  return stop
}

function build(): void {
  execFileSync('npm', ['run', '--silent', 'build'], { stdio: 'inherit' })
}

async function startServers(): Promise<{ servers: Servers; stop: () => Promise<void> }> {
  const program = fileURLToPath(new URL('servers.ts', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', program], {
    detached: true, // Ctrl-C on the terminal does not reach it
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = once(child, 'exit')
  const stop = async () => {
    child.stdin.end()
    const [code] = await ended
    if (code !== 0) throw new Error(`the servers of the tests ended with ${code}`)
  }
  for await (const line of createInterface(child.stdout)) return { servers: JSON.parse(line), stop }
  throw new Error('the servers of the tests did not start')
}

/** Reports loudly what cannot be tested here; in CI, where everything must be, that is a failure. */
function reportMissing(what: string): void {
  if (process.env.CI) throw new Error(what)
  report(what)
}

const report = (what: string) => console.error(`\n${what}\n`)
