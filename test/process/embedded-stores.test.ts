import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { newKey, send } from '../support/client.ts'
import { createTemporaryFolder, spawnService, startProcess } from '../support/process.ts'
import { until } from '../support/until.ts'

const getPidFile = (dataDir: string) => join(dataDir, 'postgres', 'data', 'postmaster.pid')

test('without any setting the service uses its embedded stores, and logs it', async () => {
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
  expect(existsSync(getPidFile(DATA_DIR))).toBe(false)
})

test.each(['SIGTERM', 'SIGKILL'] as const)(
  'orders are kept over a restart after %s',
  async (signal) => {
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
  },
)

test('a second service on the same DATA_DIR stops with one line; the first goes on', async () => {
  const DATA_DIR = await createTemporaryFolder()
  const first = await startProcess({ DATA_DIR })
  const second = await spawnService({ DATA_DIR })
  expect(await second.ended).toBe(1)
  expect(second.stderr()).toMatch(
    /^order-once cannot start: DATA_DIR .* is in use by another .*\n$/,
  )
  expect((await send(first.port)).status).toBe(201)
})

test('a port in use stops the start with one line, and the database is stopped, too', async () => {
  const DATA_DIR = await createTemporaryFolder()
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as AddressInfo
  const service = await spawnService({ DATA_DIR, PORT: `${port}` })
  expect(await service.ended).toBe(1)
  expect(service.stderr()).toBe(
    `order-once cannot start: port ${port} on 127.0.0.1 is in use: stop the program that uses it, or set PORT to another port\n`,
  )
  expect(existsSync(getPidFile(DATA_DIR))).toBe(false)
  other.close()
})

test('the second of two signals ends the service at once; the next start uses its database', async () => {
  const DATA_DIR = await createTemporaryFolder()
  const service = await startProcess({ DATA_DIR })
  const postmaster = Number(readFileSync(getPidFile(DATA_DIR), 'utf8').split('\n')[0])
  process.kill(postmaster, 'SIGSTOP') // so that the service cannot close
  service.child.kill('SIGINT')
  await until(() => service.stdout().includes('closing on SIGINT'))
  expect(await service.stop('SIGINT')).toBe(1)
  process.kill(postmaster, 'SIGCONT')

  const next = await startProcess({ DATA_DIR })
  expect((await send(next.port)).status).toBe(201)
})

test('when its database dies, the service logs it and exits; the next start has all orders', async () => {
  const DATA_DIR = await createTemporaryFolder()
  const service = await startProcess({ DATA_DIR })
  const key = newKey()
  const first = await send(service.port, { key })
  const postmaster = Number(readFileSync(getPidFile(DATA_DIR), 'utf8').split('\n')[0])
  process.kill(postmaster, 'SIGKILL')
  expect(await service.ended).toBe(1)
  expect(service.stdout()).toContain('the embedded Postgres has ended')

  const next = await startProcess({ DATA_DIR })
  expect(await send(next.port, { key })).toMatchObject({ status: 201, text: first.text })
})
