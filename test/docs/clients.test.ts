import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, test } from 'vitest'
import { newKey, ORDER, SECRET } from '../support/client.ts'
import { writeClientsFile } from '../support/clients-file.ts'
import { hasCurl, hasGo, hasPython, hasPythonCryptography } from '../support/languages.ts'
import { createKey } from '../support/message-signature.ts'
import { writePrivateKey } from '../support/private-key.ts'
import { startService } from '../support/service.ts'
import {
  countFinalAttempts,
  expectAttempts,
  FAILURES,
  ONE_ATTEMPT_EACH,
  runClient,
  startUnreliableProxy,
} from './unreliable-proxy.ts'

const FOLDER = new URL('../../docs/clients/', import.meta.url)
const locate = (name: string) => fileURLToPath(new URL(name, FOLDER))
const BODY = JSON.stringify({ ...ORDER, item: 'a “book”' })

/** The program in Go, compiled. */
let goProgram = ''

beforeAll(async () => {
  if (!hasGo) return
  const folder = await mkdtemp(join(tmpdir(), 'order-once-go-'))
  goProgram = join(folder, 'order')
  execFileSync('go', ['build', '-o', goProgram, locate('order.go')])
  return () => rm(folder, { recursive: true, force: true })
})

interface Language {
  name: string
  isInstalled: boolean
  /** what has to be run */
  findCommand: () => string[]
  /** whether it can sign with Ed25519 */
  hasEd25519?: boolean
}

const LANGUAGES: Language[] = [
  {
    name: 'curl and openssl',
    isInstalled: hasCurl,
    findCommand: () => ['bash', locate('order.sh')],
  },
  {
    name: 'Node',
    isInstalled: true,
    findCommand: () => [process.execPath, locate('order.mjs')],
  },
  {
    name: 'Python',
    isInstalled: hasPython,
    findCommand: () => ['python3', locate('order.py')],
    hasEd25519: hasPythonCryptography,
  },
  { name: 'Go', isInstalled: hasGo, findCommand: () => [goProgram] },
]

const INSTALLED = LANGUAGES.filter(({ isInstalled }) => isInstalled)

test('each program creates one order, with each key, although the first attempts fail', async () => {
  const [secretKey, ed25519Key] = [createKey('hmac', 'hmac-sha256'), createKey('ed25519')]
  const { port, database } = await startService({
    env: {
      HMAC_SECRET: SECRET,
      CLIENTS_FILE: await writeClientsFile([{ id: 'shop-1', keys: [secretKey, ed25519Key] }]),
    },
  })
  const signers = [
    { HMAC_SECRET: SECRET },
    { CLIENT_KEY: await writePrivateKey(secretKey) },
    { CLIENT_KEY: await writePrivateKey(ed25519Key) },
  ]

  // All at once, because they mostly wait.
  const created = INSTALLED.flatMap(({ name, findCommand, hasEd25519 = true }) =>
    signers.slice(0, hasEd25519 ? 3 : 2).map(async (signer) => {
      const key = newKey()
      const { url, listArrivals } = await startUnreliableProxy(port, ...FAILURES)
      const env = { ...signer, ORDER_URL: url }
      const { code, stdout, stderr } = await runClient(findCommand(), { key, body: BODY, env })
      expect({ name, code, stderr }).toMatchObject({ code: 0 })
      const arrivals = listArrivals(key)
      expectAttempts(arrivals, BODY)
      expect(arrivals.every(({ headers }) => headers.prefer === 'wait=10')).toBe(true)
      if ('CLIENT_KEY' in signer) expect(new Set(arrivals.map(readCreated)).size).not.toBe(1)
      return { key, order: JSON.parse(stdout).order }
    }),
  )

  const rows = await Promise.all(created)
  const orders = await database.sql`select id, idempotency_key, item from orders`
  expect(orders).toHaveLength(rows.length)
  for (const { key, order } of rows) {
    expect(orders).toContainEqual({ id: order.id, idempotency_key: key, item: 'a “book”' })
  }
})

describe.each(INSTALLED)('the client in $name', ({ findCommand }) => {
  test('refuses a key of P-256 in one line', async () => {
    const env = { CLIENT_KEY: await writePrivateKey(createKey('key', 'ecdsa-p256-sha256')) }
    const { code, stderr } = await runClient(findCommand(), { key: 'key-001', body: BODY, env })
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: `${env.CLIENT_KEY}: the key must be Ed25519 or HMAC, not P-256\n`,
    })
  })

  test('ends with 1 after one attempt that no retry can help', async () => {
    expect(await countFinalAttempts(findCommand(), BODY)).toEqual(ONE_ATTEMPT_EACH)
  })
})

/** The time of a message signature. */
const readCreated = ({ headers }: { headers: Record<string, unknown> }) =>
  /;created=(\d+);/.exec(`${headers['signature-input']}`)?.[1]

describe('docs/clients.md', () => {
  test('shows the programs as they are', async () => {
    const page = await readFile(new URL('../clients.md', FOLDER), 'utf8')
    const shown = Array.from(page.matchAll(/^```\w+\n(.*?)^```$/gms), ([, text]) => text)
    for (const name of await readdir(FOLDER)) {
      expect(shown).toContain(await readFile(locate(name), 'utf8'))
    }
  })
})
