import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { blockInserts } from '../support/blocked-inserts.ts'
import { get, send, sendAll } from '../support/client.ts'
import { createTemporaryFolder, spawnService, startProcess } from '../support/process.ts'
import { scrape } from '../support/scrape.ts'
import { emptyDatabase } from '../support/stores.ts'
import { until } from '../support/until.ts'

const DROPPED = 'order_once_log_lines_dropped_total'

const respond = async (port: number) => {
  await until(async () => (await get(port, '/health/live').catch(() => undefined))?.status === 200)
}

/** Writes log lines until some are dropped: a pipe and the buffer of the log are full. */
async function fillLog(port: number): Promise<void> {
  const headers = { 'x-request-id': 'x'.repeat(128) }
  await until(async () => {
    await sendAll(500, () => send(port, { method: 'GET', path: '/nowhere', headers }))
    return Number((await scrape(port)).value(DROPPED)) > 0
  })
}

test('orders are created and SIGTERM ends the process although the disk of the log is full', async () => {
  const { url } = await emptyDatabase()
  const full = openSync('/dev/full', 'w')
  onTestFinished(() => closeSync(full))
  const service = await spawnService({ DATABASE_URL: url }, { stdout: full })
  await respond(service.port)
  for (let i = 0; i < 30; i++) expect((await send(service.port)).status).toBe(201)
  expect((await scrape(service.port)).value(DROPPED)).toBeGreaterThanOrEqual(30)
  expect(await service.stop()).toBe(0)
  expect(service.stderr()).toMatch(/^order-once: log lines are dropped, .* ENOSPC: .*\n$/)
})

// `ulimit -f` stands for a small disk: its last write is short, and the next ones fail.
test.skipIf(process.platform !== 'linux')(
  'a line that is cut by a full disk is dropped, and spoils no other',
  async () => {
    const { url } = await emptyDatabase()
    const folder = await createTemporaryFolder()
    const [node, path] = [join(folder, 'node'), join(folder, 'log')]
    const script = `#!/bin/bash\nulimit -S -f 2\nexec '${process.execPath}' "$@"\n`
    await writeFile(node, script, { mode: 0o755 })
    const log = openSync(path, 'a')
    onTestFinished(() => closeSync(log))
    const service = await spawnService({ DATABASE_URL: url }, { folder, node, stdout: log })
    await respond(service.port)
    const request = (id: string) =>
      send(service.port, { method: 'GET', path: '/nowhere', headers: { 'x-request-id': id } })
    const ids = Array.from({ length: 20 }, (_, i) => `request-${i}`)
    for (const id of ids) await request(id)
    expect(service.stderr()).toMatch(/^order-once: log lines are dropped, .*\n$/)
    execFileSync('prlimit', ['--pid', `${service.child.pid}`, '--fsize=unlimited'])
    await request('after')
    const readIds = () =>
      readFileSync(path, 'utf8')
        .split('\n')
        .flatMap((line) => (line.endsWith('}') ? [JSON.parse(line).reqId] : []))
    await until(() => readIds().includes('after'))
    const logged = readIds()
    const missing = ids.filter((id) => !logged.includes(id))
    expect((await scrape(service.port)).value(DROPPED)).toBe(missing.length)
  },
)

test('orders are created and SIGTERM ends the process although nothing reads the log', async () => {
  const { url } = await emptyDatabase()
  const service = await startProcess({ DATABASE_URL: url })
  service.child.stdout?.removeAllListeners('data').pause()
  await fillLog(service.port)
  expect((await send(service.port)).status).toBe(201)
  expect(service.stderr()).toMatch(/^order-once: log lines are dropped, .*\n$/)
  service.child.kill('SIGTERM')
  await until(() => service.child.exitCode === 0)
})

test('a second SIGTERM ends the process at once although nothing reads the log', async () => {
  const { url, isBlocking, unblock } = await blockInserts()
  onTestFinished(unblock)
  const service = await startProcess({ DATABASE_URL: url })
  service.child.stdout?.removeAllListeners('data').pause()
  await fillLog(service.port)
  const order = send(service.port).catch(() => 'cut off')
  await until(isBlocking)
  service.child.kill('SIGTERM')
  await until(
    async () => (await get(service.port, '/health/live').catch(() => 'closed')) === 'closed',
  )
  service.child.kill('SIGTERM')
  await until(() => service.child.exitCode === 1)
  expect(await order).toBe('cut off')
})

test('orders are created and SIGTERM ends the process although the reader of the log has gone', async () => {
  const { url } = await emptyDatabase()
  const service = await startProcess({ DATABASE_URL: url })
  service.child.stdout?.destroy()
  for (let i = 0; i < 5; i++) expect((await send(service.port)).status).toBe(201)
  expect((await scrape(service.port)).value(DROPPED)).toBeGreaterThan(0)
  expect(await service.stop()).toBe(0)
  expect(service.stderr()).toMatch(/^order-once: log lines are dropped, .*\n$/)
})
