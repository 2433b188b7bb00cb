import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { newKey, send } from '../support/client.ts'
import { createTemporaryFolder, spawnService, startProcess } from '../support/process.ts'

const postmasterPidFile = (dataDir: string) => join(dataDir, 'postgres', 'data', 'postmaster.pid')

test('without any setting the service runs on its embedded stores, and says so', async () => {
  const DATA_DIR = await createTemporaryFolder()
  const service = await startProcess({ DATA_DIR })
  expect(service.stdout()).toContain('orders are kept in an embedded Postgres in')
  expect(service.stdout()).toContain('in the memory of this process')
  const key = newKey()
  const first = await send(service.port, { key })
  const repeat = await send(service.port, { key })
  expect([first.status, repeat.status]).toEqual([201, 201])
  expect(repeat.text).toBe(first.text)
  expect(repeat.headers['idempotency-replayed']).toBe('true')
  expect(await service.stop()).toBe(0)
  expect(existsSync(postmasterPidFile(DATA_DIR))).toBe(false)
})

test.each(['SIGTERM', 'SIGKILL'] as const)('orders outlive a restart after %s', async (signal) => {
  const DATA_DIR = await createTemporaryFolder()
  const before = await startProcess({ DATA_DIR })
  const key = newKey()
  const first = await send(before.port, { key })
  await before.stop(signal)

  const after = await startProcess({ DATA_DIR })
  const repeat = await send(after.port, { key })
  expect(repeat).toMatchObject({ status: 201, text: first.text })
  expect(repeat.headers['idempotency-replayed']).toBe('true')
  expect((await send(after.port)).status).toBe(201)
})

test('a second service on the same DATA_DIR is refused with one line; the first goes on', async () => {
  const DATA_DIR = await createTemporaryFolder()
  const first = await startProcess({ DATA_DIR })
  const second = await spawnService({ DATA_DIR })
  expect(await second.ended).toBe(1)
  expect(second.stderr()).toMatch(
    /^order-once cannot start: DATA_DIR .* is in use by another .*\n$/,
  )
  expect((await send(first.port)).status).toBe(201)
})

test('a busy port ends the start with one line, and leaves no database behind', async () => {
  const DATA_DIR = await createTemporaryFolder()
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as AddressInfo
  const service = await spawnService({ DATA_DIR, PORT: `${port}` })
  expect(await service.ended).toBe(1)
  expect(service.stderr()).toBe(
    `order-once cannot start: port ${port} on 127.0.0.1 is in use: stop the program that uses it, or set PORT to another port\n`,
  )
  expect(existsSync(postmasterPidFile(DATA_DIR))).toBe(false)
  other.close()
})

test('the second of two signals ends the service at once; the next start takes over its database', async () => {
  const DATA_DIR = await createTemporaryFolder()
  const service = await startProcess({ DATA_DIR })
  const postmaster = Number(readFileSync(postmasterPidFile(DATA_DIR), 'utf8').split('\n')[0])
  process.kill(postmaster, 'SIGSTOP') // keeps the service from closing
  service.child.kill('SIGINT')
  await new Promise((resolve) => service.child.stdout?.once('data', resolve))
  expect(await service.stop('SIGINT')).toBe(1)
  process.kill(postmaster, 'SIGCONT')

  const next = await startProcess({ DATA_DIR })
  expect((await send(next.port)).status).toBe(201)
})

test('when its database dies, the service says so and ends; the next start has every order', async () => {
  const DATA_DIR = await createTemporaryFolder()
  const service = await startProcess({ DATA_DIR })
  const key = newKey()
  const first = await send(service.port, { key })
  const postmaster = Number(readFileSync(postmasterPidFile(DATA_DIR), 'utf8').split('\n')[0])
  process.kill(postmaster, 'SIGKILL')
  expect(await service.ended).toBe(1)
  expect(service.stdout()).toContain('the embedded Postgres has ended')

  const next = await startProcess({ DATA_DIR })
  expect(await send(next.port, { key })).toMatchObject({ status: 201, text: first.text })
})
