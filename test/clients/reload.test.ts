import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { send } from '../support/client.ts'
import { formatClients, writeClientsFile } from '../support/clients-file.ts'
import { createKey } from '../support/message-signature.ts'
import { createTemporaryFolder, spawnService, startProcess } from '../support/process.ts'
import { scrape } from '../support/scrape.ts'
import { startService } from '../support/service.ts'
import { emptyDatabase, emptyRedisSpace, hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

const RELOADS = 'order_once_clients_reloads_total'
/** A changed file is in force within this time. */
const RELOAD_MS = 5_000

const OLD = createKey('old')
const NEW = createKey('new')
const oldClients = [{ id: 'shop-1', keys: [OLD] }]
const newClients = [{ id: 'shop-1', keys: [NEW] }]

const sendSigned = async (port: number, signingKey = OLD) =>
  (await send(port, { signingKey })).status

/** Waits until the service accepts the new key, and no longer the old one. */
async function expectNewClients(port: number): Promise<void> {
  await until(async () => (await sendSigned(port, NEW)) === 201, RELOAD_MS)
  expect(await sendSigned(port, OLD)).toBe(401)
}

const countReloads = async (port: number) => {
  const { value } = await scrape(port)
  return {
    ok: value(RELOADS, { result: 'ok' }),
    failed: value(RELOADS, { result: 'failed' }),
  }
}

describe('the clients', () => {
  test('are those of the file as it was written last', async () => {
    const file = await writeClientsFile(oldClients)
    const { port } = await startService({ env: { CLIENTS_FILE: file } })
    expect(await sendSigned(port, OLD)).toBe(201)
    expect(await sendSigned(port, NEW)).toBe(401)
    expect(await countReloads(port)).toEqual({ ok: 0, failed: 0 })
    await writeFile(file, formatClients(newClients))
    await expectNewClients(port)
    expect(await countReloads(port)).toEqual({ ok: 1, failed: 0 })
  })

  test('are those of a file that replaces the file', async () => {
    const file = await writeClientsFile(oldClients)
    const { port } = await startService({ env: { CLIENTS_FILE: file } })
    await rename(await writeClientsFile(newClients), file)
    await expectNewClients(port)
  })

  test('are those of the folder to which a symbolic link leads, as Kubernetes swaps it', async () => {
    const folder = await createTemporaryFolder()
    for (const [version, clients] of Object.entries({ one: oldClients, two: newClients })) {
      await mkdir(join(folder, version))
      await writeFile(join(folder, version, 'clients.json'), formatClients(clients))
    }
    await symlink('one', join(folder, '..data'))
    await symlink('..data/clients.json', join(folder, 'clients.json'))
    const { port } = await startService({ env: { CLIENTS_FILE: join(folder, 'clients.json') } })
    expect(await sendSigned(port, OLD)).toBe(201)
    await symlink('two', join(folder, '..new'))
    await rename(join(folder, '..new'), join(folder, '..data'))
    await expectNewClients(port)
  })

  test('stay in force while the new file is wrong or missing, which the log and the metric say', async () => {
    const file = await writeClientsFile(oldClients)
    const { port, logLines } = await startService({ env: { CLIENTS_FILE: file } })
    const errors = () => logLines.filter(({ level }) => level === 50).map(({ msg }) => msg)
    await writeFile(file, JSON.stringify({ clients: [{ id: 'shop-1', keys: [{ kid: 'a' }] }] }))
    await until(async () => (await countReloads(port)).failed === 1, RELOAD_MS)
    expect(errors()).toEqual([
      'CLIENTS_FILE: clients[0].keys[0].kty must be oct, OKP or EC; the clients that were read before stay in force',
    ])
    await rm(file)
    await until(async () => (await countReloads(port)).failed === 2, RELOAD_MS)
    expect(errors()[1]).toContain('cannot be read: ENOENT')
    expect(await sendSigned(port, OLD)).toBe(201)
    await writeFile(file, formatClients(newClients))
    await expectNewClients(port)
    expect(await countReloads(port)).toEqual({ ok: 1, failed: 2 })
  })
})

describe('SIGHUP', () => {
  test('makes a process read the file again, and does not end it', async () => {
    const file = await writeClientsFile(oldClients)
    const service = await startProcess({ CLIENTS_FILE: file })
    for (const ok of [1, 2]) {
      service.child.kill('SIGHUP')
      await until(async () => (await countReloads(service.port)).ok === ok)
    }
    expect(await sendSigned(service.port, OLD)).toBe(201)
    expect(await service.stop()).toBe(0)
  })

  test.runIf(hasRedis)('makes every worker read the file again, and ends none', async () => {
    const file = await writeClientsFile(oldClients)
    const { url: databaseUrl } = await emptyDatabase()
    const service = await startProcess({
      ...{ CLIENTS_FILE: file, WORKERS: '2' },
      ...{ DATABASE_URL: databaseUrl, REDIS_URL: (await emptyRedisSpace()).url },
    })
    service.child.kill('SIGHUP')
    await until(async () => (await countReloads(service.port)).ok === 2)
    await writeFile(file, formatClients(newClients))
    await until(async () => (await countReloads(service.port)).ok === 4, RELOAD_MS)
    // Each worker has its turn.
    for (let i = 0; i < 4; i++) expect(await sendSigned(service.port, NEW)).toBe(201)
    expect(service.logLines().filter(({ msg }) => /exited/.test(`${msg}`))).toEqual([])
  })
})

describe('the start', () => {
  test('is refused with one line if the file is wrong or missing', async () => {
    const file = await writeClientsFile([{ id: 'shop 1', keys: [] }])
    const wrong = await spawnService({ CLIENTS_FILE: file })
    expect(await wrong.ended).toBe(1)
    expect(wrong.stderr()).toBe(
      'order-once cannot start: CLIENTS_FILE: clients[0].id must be 1 to 64 of the characters A-Z a-z 0-9 . _ -\n',
    )
    const missing = join(dirname(file), 'missing.json')
    const service = await spawnService({ CLIENTS_FILE: missing })
    expect(await service.ended).toBe(1)
    expect(service.stderr()).toBe(
      `order-once cannot start: CLIENTS_FILE: ${missing} cannot be read: ENOENT\n`,
    )
  })
})
