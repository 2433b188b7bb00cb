/** A master, a replica and three sentinels, which belong to the process that starts them. */
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { Redis, type RedisOptions } from 'ioredis'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import type { CertificateAuthority } from './certificates.ts'
import { type RedisProcess, startRedisProcess } from './redis-process.ts'
import { until } from './until.ts'

const MASTER_NAME = 'orders'
const SENTINELS = 3
/** Short, so that a test does not wait long; a busy machine must not fail over by itself. */
const DOWN_AFTER_MS = 1_000

const PASSWORDS = { servers: 'p@ss/servers', sentinels: 'p@ss/sentinels' }

interface Options {
  /** users and passwords, which are not the same for servers and sentinels */
  hasPasswords?: boolean
  /** all connections are encrypted, with certificates of this authority */
  authority?: CertificateAuthority
}

export interface SentinelSystem {
  url: string
  /** the port of the server that the sentinels call the master */
  readMasterPort(): Promise<number>
  /** a client with all rights on the server at the port */
  connect(port: number): Redis
  server(port: number): RedisProcess
  sentinels: (RedisProcess & { port: number })[]
  /** asks a sentinel for a planned failover; returns when it is complete */
  switchMaster(): Promise<void>
  stop(): Promise<void>
}

/** The rights of a user of the sentinels, as docs/operations.md gives them. */
async function readSentinelRights(): Promise<string> {
  const page = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8')
  return /A user of the sentinels needs `([^`]+)`/.exec(page)?.[1] ?? ''
}

/** Starts them, and waits until the sentinels know each other and the replica. */
export async function startSentinels(options: Options = {}): Promise<SentinelSystem> {
  const { hasPasswords = false, authority } = options
  const certificate = authority?.issue('redis', 'IP:127.0.0.1')
  const listen = (port: number) => [
    'bind 127.0.0.1',
    ...(certificate
      ? [
          ...['port 0', `tls-port ${port}`, 'tls-replication yes', 'tls-auth-clients no'],
          ...[`tls-cert-file ${certificate}`, `tls-key-file ${certificate}.key`],
          `tls-ca-cert-file ${authority?.file}`,
        ]
      : [`port ${port}`]),
  ]
  const clients: Redis[] = []
  function open(port: number, more: RedisOptions & { replyMapping?: never } = {}): Redis {
    const client = new Redis({
      ...{ port, host: '127.0.0.1', maxRetriesPerRequest: null },
      ...(authority && { tls: { ca: readFileSync(authority.file) } }),
      ...more,
    })
    client.on('error', () => {})
    clients.push(client)
    return client
  }

  const connect = (port: number) => open(port, hasPasswords ? { password: PASSWORDS.servers } : {})

  async function startServer(masterPort?: number) {
    const port = await freePort()
    const config = [...listen(port), 'save ""', 'repl-diskless-sync-delay 0']
    if (hasPasswords) {
      config.push(`requirepass ${PASSWORDS.servers}`, `masterauth ${PASSWORDS.servers}`)
      config.push(`user service on >${PASSWORDS.servers} ~* &* +@all`)
    }
    if (masterPort !== undefined) config.push(`replicaof 127.0.0.1 ${masterPort}`)
    const server = await startRedisProcess(config)
    await connect(port).ping()
    return { port, server }
  }

  async function startSentinel(masterPort: number) {
    const port = await freePort()
    const config = [
      ...listen(port),
      `sentinel monitor ${MASTER_NAME} 127.0.0.1 ${masterPort} 2`,
      `sentinel down-after-milliseconds ${MASTER_NAME} ${DOWN_AFTER_MS}`,
      `sentinel failover-timeout ${MASTER_NAME} 5000`,
    ]
    if (hasPasswords) {
      config.push(`sentinel auth-pass ${MASTER_NAME} ${PASSWORDS.servers}`)
      config.push(`requirepass ${PASSWORDS.sentinels}`)
      config.push(`sentinel sentinel-pass ${PASSWORDS.sentinels}`)
      config.push(
        `user service on >${PASSWORDS.sentinels} resetchannels ${await readSentinelRights()}`,
      )
    }
    const process = await startRedisProcess(config, ['--sentinel'])
    const client = open(port, {
      enableReadyCheck: false,
      ...(hasPasswords && { password: PASSWORDS.sentinels }),
    })
    return { ...process, port, client }
  }

  const first = await startServer()
  const servers = [first, await startServer(first.port)]
  const sentinels = await Promise.all(
    Array.from({ length: SENTINELS }, () => startSentinel(first.port)),
  )
  for (const { client } of sentinels) {
    await until(async () => {
      const fields = (await client.call('SENTINEL', 'MASTER', MASTER_NAME)) as string[]
      const read = (name: string) => Number(fields[fields.indexOf(name) + 1])
      return read('num-slaves') === 1 && read('num-other-sentinels') === SENTINELS - 1
    }, 60_000)
  }

  const readPortAt = async ({ client }: { client: Redis }) => {
    const reply = await client.call('SENTINEL', 'get-master-addr-by-name', MASTER_NAME)
    return Number((reply as string[])[1])
  }
  const readMasterPort = () => readPortAt(sentinels[0] as (typeof sentinels)[0])
  const server = (port: number) => {
    const found = servers.find((one) => one.port === port)
    if (!found) throw new Error(`no server has the port ${port}`)
    return found.server
  }
  const encode = encodeURIComponent
  const user = hasPasswords ? `service:${encode(PASSWORDS.servers)}@` : ''
  const hosts = sentinels.map(({ port }) => `127.0.0.1:${port}`)
  const parameters = hasPasswords
    ? `?sentinel_username=service&sentinel_password=${encode(PASSWORDS.sentinels)}`
    : ''
  return {
    url: `redis${authority ? 's' : ''}+sentinel://${user}${hosts}/${MASTER_NAME}${parameters}`,
    readMasterPort,
    connect,
    server,
    sentinels,
    async switchMaster() {
      const before = await readMasterPort()
      const [{ client }] = sentinels as [(typeof sentinels)[0]]
      // It refuses until it has seen that the replica is a good one.
      await until(async () => client.call('SENTINEL', 'FAILOVER', MASTER_NAME).catch(() => false))
      await until(async () => (await readMasterPort()) !== before, 60_000)
    },
    async stop() {
      for (const client of clients) client.disconnect()
      for (const sentinel of sentinels) await sentinel.kill()
      for (const { server } of servers) await server.kill()
    },
  }
}
