import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { pino } from 'pino'
import { afterEach, describe, expect, onTestFinished, test } from 'vitest'
import { DatabaseUnavailableError } from '../../src/stores/database-unavailable.ts'
import { openPostgresPool } from '../../src/stores/postgres-pool.ts'
import { waitForPostgres, withDedicatedConnection } from '../../src/stores/postgres-session.ts'
import { PostgresNode, postgresPrograms, urlOfHosts } from '../support/postgres-node.ts'
import { SILENT_LOG } from '../support/silent-log.ts'
import { until } from '../support/until.ts'

const nodes: PostgresNode[] = []
afterEach(async () => {
  await Promise.all(nodes.splice(0).map((node) => node.remove()))
})

async function startPair() {
  const primary = await PostgresNode.startPrimary()
  nodes.push(primary)
  const standby = await primary.addStandby()
  nodes.push(standby)
  await primary.administer((sql) => sql.unsafe('create table written (by text)'))
  await primary.administer((sql) => sql.unsafe('grant all on written to public'))
  return { primary, standby }
}

function openPool(url: string) {
  const lines: string[] = []
  const log = pino({}, { write: (line) => void lines.push(JSON.parse(line).msg) })
  const pool = openPostgresPool(url, log)
  onTestFinished(() => pool.close())
  const write = (by: string) => pool.query('insert into written values ($1) returning by', [by])
  const readPort = async () =>
    (await pool.query("select current_setting('port')::int as port"))[0]?.port as number
  /** Writes until a write succeeds. @returns where it was written, and when, by `performance.now()` */
  const writeAgain = () =>
    until(async () => {
      const written = await write('again').catch(() => undefined)
      return written && { at: performance.now(), port: await readPort() }
    })
  return { pool, lines, write, readPort, writeAgain }
}

/** Starts a server that accepts connections and never responds. @returns its place */
async function startSilentServer(): Promise<string> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => void sockets.add(socket)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Nothing listens there. */
const DOWN = '127.0.0.1:1'

/** The service moves within this time after a promotion; a busy machine takes some more. */
const MOVE_TIMEOUT_MS = 2_000

describe.skipIf(postgresPrograms === undefined)('with several hosts, the service', () => {
  test('uses the primary, whichever host is listed first, down or silent', async () => {
    const { primary, standby } = await startPair()
    const silent = await startSilentServer()
    for (const url of [
      urlOfHosts(standby, primary),
      urlOfHosts(primary, standby),
      urlOfHosts(DOWN, standby, primary),
      urlOfHosts(silent, primary),
    ]) {
      expect(await openPool(url).readPort()).toBe(primary.port)
      const [row] = await withDedicatedConnection(
        url,
        (client) => client`select current_setting('port')::int as port`,
      )
      expect(row?.port).toBe(primary.port)
    }
  })

  test('moves to the promoted standby when the primary is killed', async () => {
    const { primary, standby } = await startPair()
    const { write, writeAgain, lines } = openPool(urlOfHosts(primary, standby))
    await write('before')
    await primary.kill()
    // Backends of a killed Postgres may still serve their last query.
    await until(() =>
      write('in between').then(
        () => false,
        (error) => error instanceof DatabaseUnavailableError,
      ),
    )
    const promotedAt = await standby.promote()
    const { at, port } = await writeAgain()
    expect(port).toBe(standby.port)
    expect(at - promotedAt).toBeLessThan(MOVE_TIMEOUT_MS)
    expect(lines).toContain(`Postgres at ${standby.host} is the primary now, on timeline 2`)
  })

  test('moves in a planned switchover, and back in the next one', async () => {
    const { primary, standby } = await startPair()
    const { write, writeAgain } = openPool(urlOfHosts(primary, standby))
    await write('before')
    await primary.stop()
    await standby.promote()
    expect((await writeAgain()).port).toBe(standby.port)
    await primary.follow(standby)
    await standby.stop()
    await primary.promote()
    expect((await writeAgain()).port).toBe(primary.port)
  })

  test('never goes back to the old primary, which thaws unfenced, nor does one that starts then', async () => {
    const { primary, standby } = await startPair()
    const { pool, write, readPort, writeAgain } = openPool(urlOfHosts(primary, standby))
    await write('before')
    primary.freeze()
    const pending = write('pending')
    const promotedAt = await standby.promote()
    await pending // runs again on the new primary
    const { at, port } = await writeAgain()
    expect(port).toBe(standby.port)
    expect(at - promotedAt).toBeLessThan(MOVE_TIMEOUT_MS)
    primary.thaw()
    // The old primary accepts writes, and has none of ours.
    await until(() => primary.administer((sql) => sql`insert into written values ('other')`))
    expect(await openPool(urlOfHosts(primary, standby)).readPort()).toBe(standby.port)
    for (let count = 0; count < 50; count++) await write('after')
    expect(await readPort()).toBe(standby.port)
    expect(await primary.administer((sql) => sql`select from written where by = 'after'`)).toEqual(
      [],
    )
    // Even while the new one is down, it is not used.
    await standby.kill()
    await expect(
      until(async () => {
        await write('to the old one').catch((error) => {
          if (error.message.includes('is on the old timeline 1, not 2')) throw error
        })
      }),
    ).rejects.toThrow('is on the old timeline 1, not 2')
    await standby.start()
    await until(() => readPort().catch(() => undefined))
    expect(pool.load().pending).toBe(0)
  })

  test('never uses a server of another installation, and names it once', async () => {
    const { primary, standby } = await startPair()
    const other = await PostgresNode.startPrimary()
    nodes.push(other)
    const url = urlOfHosts(other, primary, standby)
    await expect(openPool(url).readPort()).rejects.toThrow(
      'the hosts of DATABASE_URL are of different installations',
    )
    const promoted = await other.addStandby('promoted')
    nodes.push(promoted)
    await promoted.promote()
    const late = urlOfHosts(promoted, primary, standby)
    promoted.freeze()
    const { lines, write, readPort } = openPool(late)
    await write('before')
    promoted.thaw()
    const isOther = (line: string) => line.includes('is of another installation')
    await until(() => lines.some(isOther))
    expect(lines.filter(isOther)).toEqual([
      expect.stringMatching(
        `^Postgres at ${promoted.host} is of another installation than ${primary.host}`,
      ),
    ])
    expect(await readPort()).toBe(primary.port)
    await primary.stop()
    await until(() =>
      write('in between').then(
        () => false,
        (error) => error.message.includes(`${promoted.host} is of another installation`),
      ),
    )
    // Dedicated connections do not use it either.
    await expect(withDedicatedConnection(late, (client) => client`select 1`)).rejects.toThrow(
      `${promoted.host} is of another installation`,
    )
  })

  test('stays on its server when a copy of it accepts writes, and names both', async () => {
    const { primary } = await startPair()
    const copy = await primary.addCopy()
    nodes.push(copy)
    copy.freeze()
    const { lines, write, readPort } = openPool(urlOfHosts(copy, primary))
    await write('before')
    copy.thaw()
    await until(() => lines.length > 0)
    expect(lines).toEqual([
      `Postgres at ${copy.host} (timeline 1) and at ${primary.host} (timeline 1) both accept writes; ${primary.host} is used: fence the other one`,
    ])
    expect(await readPort()).toBe(primary.port)
  })

  test('moves when the primary becomes read-only and a standby is promoted', async () => {
    const { primary, standby } = await startPair()
    const { write, writeAgain } = openPool(urlOfHosts(primary, standby))
    await write('before')
    await primary.set('default_transaction_read_only', 'on')
    await expect(write('in between')).rejects.toThrow(/read-only/)
    await standby.promote()
    expect((await writeAgain()).port).toBe(standby.port)
  })

  test('says of each host why it is not the primary', async () => {
    const { primary, standby } = await startPair()
    await primary.stop()
    const waiting = openPool(urlOfHosts(standby, primary)).readPort()
    await expect(waiting).rejects.toThrow(
      `no host of DATABASE_URL is the primary: ${standby.host} is a standby; ${primary.host} failed (connect ECONNREFUSED ${primary.host})`,
    )
  })

  test('stops the start in one line when every host refuses the role', async () => {
    const { primary, standby } = await startPair()
    const url = urlOfHosts(primary, standby).replace('order_once@', 'nobody@')
    await expect(waitForPostgres(url, SILENT_LOG)).rejects.toThrow('role "nobody" does not exist')
  })
})
