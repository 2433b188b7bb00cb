import { createPrivateKey } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { parseClients } from '../../src/clients/clients-file.ts'
import { generateClientKey } from '../../src/clients/keygen.ts'
import { SIGNATURE_ALGORITHMS } from '../../src/clients/signature-algorithms.ts'
import { signBase } from '../support/message-signature.ts'
import { hasFullDevice, runBinary, runBinaryOnFullDisk } from '../support/process.ts'

describe('order-once keygen', () => {
  test('prints a private key and the entry for the file of clients, which belong together', async () => {
    const { code, stdout, stderr } = await runBinary(['keygen', 'shop-1'])
    expect(code).toBe(0)
    expect(stderr).toContain('not printed again')
    const [privateKey, entry, ...more] = stdout.trim().split('\n')
    expect(more).toEqual([])
    const { d, ...publicKey } = JSON.parse(privateKey ?? '')
    expect(JSON.parse(entry ?? '')).toEqual({ id: 'shop-1', keys: [publicKey] })
    expect(d).toMatch(/^[\w-]{43}$/)
  })

  test('makes keys that verify what their private halves sign, each with a kid of its own', () => {
    const made = [generateClientKey('shop-1'), generateClientKey('shop-1')]
    const { keys } = parseClients(
      JSON.stringify({
        clients: made.map(({ entry }, i) => ({ ...entry, id: `shop-${i}` })),
      }),
    )
    expect(keys.size).toBe(2)
    for (const { privateKey } of made) {
      const { kid } = privateKey
      const secret = createPrivateKey({ key: privateKey, format: 'jwk' })
      const base = Buffer.from('the base')
      const key = keys.get(kid)
      const signature = signBase({ kid, algorithm: 'ed25519', secret, jwk: privateKey }, base)
      expect(key && SIGNATURE_ALGORITHMS[key.algorithm].verify(key.key, base, signature)).toBe(true)
    }
  })

  test.each([[[]], [['shop 1']], [['a', 'b']]])(
    'exits with 2 and its usage for %j',
    async (args) => {
      expect(await runBinary(['keygen', ...args])).toEqual({
        code: 2,
        stdout: '',
        stderr: expect.stringContaining('usage: order-once keygen <client id>'),
      })
    },
  )

  test.runIf(hasFullDevice)('exits with 1 and says so if the key could not be written', () => {
    const { code, stderr } = runBinaryOnFullDisk(['keygen', 'shop-1'])
    expect(code).toBe(1)
    expect(stderr).toMatch(/\norder-once: the output could not be written: ENOSPC.*\n$/)
  })

  test('prints its usage with --help', async () => {
    const { code, stdout } = await runBinary(['keygen', '--help'])
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining('usage:') })
  })
})
