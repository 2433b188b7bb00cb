import { execFileSync } from 'node:child_process'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parseClients, readClientsFile } from '../../src/clients/clients-file.ts'
import { createKey, createKeys } from '../support/message-signature.ts'
import { createTemporaryFolder } from '../support/process.ts'

const [hmac, ed25519, ecdsa] = createKeys().map(({ jwk }) => jwk)
const OTHER = createKey('other').jwk

const parse = (clients: unknown) => parseClients(JSON.stringify({ clients }))
const parseKey = (key: unknown) =>
  parse([
    { id: 'shop-1', keys: [] },
    { id: 'shop-2', keys: [key] },
  ])

describe('the file of clients', () => {
  test('has clients with keys for each algorithm, and limits of their own', () => {
    const { byId, keys } = parse([
      { id: 'shop-1', rate_limit_max: 600, keys: [ed25519, ecdsa] },
      { id: 'A.b_c-9', keys: [hmac] },
      { id: 'default', keys: [] },
    ])
    expect([...byId.values()]).toEqual([
      { id: 'shop-1', rateLimitMax: 600 },
      { id: 'A.b_c-9', rateLimitMax: undefined },
      { id: 'default', rateLimitMax: undefined },
    ])
    const found = [...keys].map(([kid, { algorithm, client }]) => [kid, algorithm, client.id])
    expect(found).toEqual([
      ['key-ed25519', 'ed25519', 'shop-1'],
      ['key-ecdsa-p256-sha256', 'ecdsa-p256-sha256', 'shop-1'],
      ['key-hmac-sha256', 'hmac-sha256', 'A.b_c-9'],
    ])
  })

  test('may have further members in a key, which JSON Web Keys often have', () => {
    const { keys } = parse([{ id: 'a', keys: [{ ...ed25519, alg: 'EdDSA', use: 'sig' }] }])
    expect(keys.size).toBe(1)
  })

  test.each([
    ['not JSON', 'the file must be JSON'],
    ['[]', 'the file must be an object'],
    ['{}', 'clients must be an array'],
    ['{"clients":[],"keys":[]}', 'the file must have no member but clients'],
    ['{"clients":[1]}', 'clients[0] must be an object'],
    ['{"clients":[{"id":"a"}]}', 'clients[0].keys must be an array'],
    ['{"clients":[{"keys":[]}]}', 'clients[0].id must be 1 to 64 of the characters'],
    ['{"clients":[],"clients":[]}', 'the file must not have "clients" twice in one object'],
    [
      '{"clients":[{"id":"a","keys":[],"\\u0069d":"b"}]}',
      'the file must not have "id" twice in one object',
    ],
    ['{"clients":[{"id":"a","keys":[1]}]}', 'clients[0].keys[0] must be an object'],
  ])('with the text %s is refused', (text, message) => {
    expect(() => parseClients(text)).toThrow(
      expect.objectContaining({
        name: 'StartError',
        message: expect.stringContaining(`CLIENTS_FILE: ${message}`),
      }),
    )
  })

  test.each<[unknown, string]>([
    [
      [
        { id: 'a', keys: [] },
        { id: 'a', keys: [] },
      ],
      'clients[1].id must be different',
    ],
    ...['', 'a'.repeat(65), 'a,b', 'a b', 'ä', 'a/b', 1].map((id): [unknown, string] => [
      [{ id, keys: [] }],
      'clients[0].id must be 1 to 64 of the characters',
    ]),
    ...[0, -1, 1.5, '600', null, 1e10].map((rate_limit_max): [unknown, string] => [
      [{ id: 'a', keys: [], rate_limit_max }],
      'clients[0].rate_limit_max must be an integer from 1 to 1000000000',
    ]),
    [
      [{ id: 'a', keys: [], rate_limit: 1 }],
      'clients[0] must have no member but id, rate_limit_max, keys',
    ],
    [
      [
        { id: 'a', keys: [ed25519] },
        { id: 'b', keys: [OTHER, { ...OTHER, kid: ed25519?.kid }] },
      ],
      'clients[1].keys[1].kid must be different',
    ],
  ])('with the clients %j is refused', (clients, message) => {
    expect(() => parse(clients)).toThrow(`CLIENTS_FILE: ${message}`)
  })

  test.each<[unknown, string]>([
    [{ ...ed25519, kid: undefined }, '.kid must be'],
    [{ ...ed25519, kid: 'a"b' }, '.kid must be'],
    [{ ...ed25519, kid: 'ä' }, '.kid must be'],
    [{ ...ed25519, d: 'AA' }, '.d must not be here: it is the private key'],
    [{ ...hmac, d: null }, '.d must not be here: it is the private key'],
    [{ kid: 'a', kty: 'RSA', n: 'AA', e: 'AQAB' }, '.kty must be oct, OKP or EC'],
    [{ kid: 'a' }, '.kty must be oct, OKP or EC'],
    [{ ...ed25519, crv: 'X25519' }, '.crv must be Ed25519'],
    [{ ...ecdsa, crv: 'P-384' }, '.crv must be P-256'],
    [{ ...ed25519, x: undefined }, '.x must be base64url of 32 bytes'],
    [{ ...ed25519, x: `${ed25519?.x}=` }, '.x must be base64url of 32 bytes'],
    [{ ...ed25519, x: ed25519?.x?.slice(1) }, '.x must be base64url of 32 bytes'],
    // 32 zero bytes, as of an entry that was never filled in, and the other points that are their own 8th multiple.
    ...[
      '00'.repeat(32),
      `${'00'.repeat(31)}80`,
      `01${'00'.repeat(31)}`,
      `ec${'ff'.repeat(31)}`,
      `ee${'ff'.repeat(30)}7f`,
      'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
      '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
    ].map((x): [unknown, string] => [
      { ...ed25519, x: Buffer.from(x, 'hex').toString('base64url') },
      '.x must not be a point of low order: anyone can sign with it',
    ]),
    [{ ...ecdsa, y: 'AA' }, '.y must be base64url of 32 bytes'],
    [{ ...ecdsa, y: ecdsa?.x }, ' must be a point of the curve P-256'],
    [{ ...hmac, k: 'A'.repeat(42) }, '.k must be base64url of 32 bytes or more'],
    [{ ...hmac, k: undefined }, '.k must be base64url of 32 bytes or more'],
  ])('with the key %j is refused', (key, message) => {
    expect(() => parseKey(key)).toThrow(`CLIENTS_FILE: clients[1].keys[0]${message}`)
  })

  test('is refused without the values in the message', () => {
    const secret = Buffer.from('a secret that is too short').toString('base64url')
    expect(() => parseKey({ ...hmac, k: secret })).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining(secret) }),
    )
  })

  test('that cannot be read is refused with the reason', async () => {
    const folder = await createTemporaryFolder()
    const path = join(folder, 'clients.json')
    await expect(readClientsFile(path)).rejects.toThrow(`${path} cannot be read: ENOENT`)
    await mkdir(path)
    await expect(readClientsFile(path)).rejects.toThrow(`${path} is not a regular file`)
    for (const name of ['pipe', 'device']) {
      const other = join(folder, name)
      if (name === 'pipe') execFileSync('mkfifo', [other])
      else await symlink('/dev/zero', other)
      await expect(readClientsFile(other)).rejects.toThrow(`${other} is not a regular file`)
    }
    await writeFile(join(folder, 'latin1'), Buffer.from([0x7b, 0xe4]))
    await expect(readClientsFile(join(folder, 'latin1'))).rejects.toThrow('is not UTF-8')
  })
})
