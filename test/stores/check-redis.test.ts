import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { Redis } from 'ioredis'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { checkRedis } from '../../src/stores/check-redis.ts'
import { CertificateAuthority } from '../support/certificates.ts'
import { type PrivateRedis, redisServer, startPrivateRedis } from '../support/private-redis.ts'

/** Checks a Redis. @returns the warnings */
async function check(url: string): Promise<string[]> {
  const warnings: string[] = []
  await checkRedis(url, pino({}, { write: (line) => void warnings.push(JSON.parse(line).msg) }))
  return warnings
}

const stopsWith = (message: RegExp) =>
  expect.objectContaining({ name: 'StartError', message: expect.stringMatching(message) })

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  return (server.address() as AddressInfo).port
}

describe.runIf(redisServer)('the check of REDIS_URL', () => {
  let server: PrivateRedis
  let admin: Redis

  beforeAll(async () => {
    server = await startPrivateRedis()
    admin = new Redis(server.url)
    for (const [user, ...rights] of [
      ['everything', '~*', '&*', '+@all'],
      ['documented', '~idemp:*', '~order-once:*', '&idemp:*', '+@all'],
      ['no-scripts', '~*', '&*', '+@all', '-evalsha', '-eval'],
      ['no-set', '~*', '&*', '+@all', '-set'],
      ['no-records', '~order-once:*', '&*', '+@all'],
      ['no-info', '~*', '&*', '+@all', '-info'],
      ['no-select', '~*', '&*', '+@all', '-select'],
    ] as const) {
      await admin.call('ACL', 'SETUSER', user, 'on', '>secret', ...rights)
    }
  })
  afterAll(async () => {
    admin.disconnect()
    await server.stop()
  })

  const urlOf = (user: string, path = '') => server.url.replace('//', `//${user}:secret@`) + path

  test.each(['everything', 'no-info', 'no-select'])('accepts the user %s', async (user) => {
    expect(await check(urlOf(user))).toEqual([])
  })

  test('writes only keys that expire, into the database of the URL', async () => {
    await admin.flushall()
    expect(await check(`${server.url}/3`)).toEqual([])
    expect(await admin.info('keyspace')).toMatch(/^# Keyspace\r\ndb3:keys=2,expires=2/)
  })

  test.each([
    [
      'a database that the server does not have',
      () => `${server.url}/20`,
      /DB index is out of range/,
    ],
    ['a wrong password', () => server.url.replace('//', '//everything:wrong@'), /WRONGPASS/],
    ['a database that the user may not select', () => urlOf('no-select', '/1'), /NOPERM .*select/],
  ])('refuses %s in one line, without the password', async (_case, url, reason) => {
    const message = new RegExp(
      `^REDIS_URL: Redis at [\\d.:/]+ cannot be used: .*${reason.source}.*$`,
    )
    await expect(check(url())).rejects.toEqual(stopsWith(message))
  })

  test('refuses a server that wants a password when the URL has none', async () => {
    await admin.call('ACL', 'SETUSER', 'default', 'resetpass', '>secret')
    onTestFinished(() => void admin.call('ACL', 'SETUSER', 'default', 'nopass'))
    await expect(check(server.url)).rejects.toEqual(stopsWith(/cannot be used: NOAUTH/))
  })

  test.each([
    ['no-scripts', /'eval(sha)?'/],
    ['no-set', /\(SET\)/],
    ['no-records', /keys/],
  ])('warns of the right that the user %s lacks, once', async (user, right) => {
    const warnings = await check(urlOf(user))
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toMatch(/^REDIS_URL: Redis at \S+ refuses what the service does \(/)
    expect(warnings[0]).toMatch(right)
  })

  test.each([
    ['a port on which nothing listens', 'redis://127.0.0.1:1', /does not respond \(.*ECONNREFUSED/],
    ['a host that is not known', 'redis://host.invalid', /does not respond \(getaddrinfo/],
  ])('warns of %s', async (_case, url, warning) => {
    expect(await check(url)).toEqual([expect.stringMatching(warning)])
  })
})

test.each([
  [
    'no TLS',
    'rediss',
    () => createServer((socket) => socket.on('error', () => {})),
    /^REDIS_URL: Redis at \S+ does not respond \(connect ETIMEDOUT: does this port speak TLS\? If not, use redis:\/\/\)/,
  ],
  [
    'TLS',
    'redis',
    () => createServer((socket) => socket.once('data', () => socket.resetAndDestroy())),
    /^REDIS_URL: Redis at \S+ does not respond \(\S+ ECONNRESET: does this port speak TLS\? If it does, use rediss:\/\/\)/,
  ],
])(
  'a port with %s and %s:// is a warning that asks for TLS',
  async (_name, scheme, create, warning) => {
    const port = await listen(create())
    expect(await check(`${scheme}://127.0.0.1:${port}`)).toEqual([expect.stringMatching(warning)])
  },
)

test('a server that responds to TLS with text is refused in one line that asks for TLS', async () => {
  const port = await listen(
    createServer((socket) => socket.once('data', () => socket.end('-ERR\r\n'))),
  )
  await expect(check(`rediss://127.0.0.1:${port}`)).rejects.toEqual(
    stopsWith(
      /^REDIS_URL: Redis at \S+ cannot be used: .*: does this port speak TLS\? If not, use redis:\/\/$/,
    ),
  )
})

test('a Redis that is older than version 6 is refused in one line', async () => {
  const server = createServer((socket) => {
    socket.on('data', () => socket.write("-ERR unknown command 'HELLO'\r\n"))
    socket.on('error', () => {})
  })
  const port = await listen(server)
  await expect(check(`redis://127.0.0.1:${port}`)).rejects.toEqual(
    stopsWith(/^Redis at 127\.0\.0\.1:\d+ is too old \(no HELLO\): use Redis 6 or later$/),
  )
})

test('a certificate that cannot be verified is refused in one line', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'order-once-tls-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const file = new CertificateAuthority(folder).issue('redis', 'IP:127.0.0.1')
  const server = createTlsServer({ cert: readFileSync(file), key: readFileSync(`${file}.key`) })
  server.on('tlsClientError', () => {})
  const port = await listen(server)
  await expect(check(`rediss://127.0.0.1:${port}`)).rejects.toEqual(
    stopsWith(/^REDIS_URL: Redis at \S+ cannot be used: unable to verify the first certificate/),
  )
})
