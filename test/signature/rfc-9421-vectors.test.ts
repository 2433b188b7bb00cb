/** The vectors of RFC 9421, appendix B.2, for the algorithms that the service has. */
import { describe, expect, test } from 'vitest'
import { parseJsonWebKey } from '../../src/clients/json-web-key.ts'
import { SIGNATURE_ALGORITHMS } from '../../src/clients/signature-algorithms.ts'
import { checkContentDigest } from '../../src/signature/content-digest.ts'
import { buildSignatureBase, joinHeaders } from '../../src/signature/signature-base.ts'
import { parseSignatureInput } from '../../src/signature/signature-input.ts'

/** B.2: `test-request`. */
const REQUEST = {
  method: 'POST',
  target: '/foo?param=Value&Pet=dog',
  authority: 'example.com',
  rawHeaders: [
    ...['Host', 'example.com'],
    ...['Date', 'Tue, 20 Apr 2021 02:07:55 GMT'],
    ...['Content-Type', 'application/json'],
    'Content-Digest',
    'sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:',
    ...['Content-Length', '18'],
  ],
  body: Buffer.from('{"hello": "world"}'),
}

/** B.1.5, as base64url. */
const SHARED_SECRET =
  'uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=='
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')

const KEYS = {
  /** B.1.3 */
  ecdsa: {
    kty: 'EC',
    crv: 'P-256',
    x: 'qIVYZVLCrPZHGHjP17CTW0_-D9Lfw0EkjqF7xB4FivA',
    y: 'Mc4nN9LTDOBhfoUeg8Ye9WedFRhnZXZJA12Qp0zZ6F0',
  },
  /** B.1.4 */
  ed25519: { kty: 'OKP', crv: 'Ed25519', x: 'JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs' },
  hmac: { kty: 'oct', k: SHARED_SECRET },
}

function verify(jwk: Record<string, string>, base: string, signature: string): boolean {
  const { algorithm, key } = parseJsonWebKey(jwk)
  return SIGNATURE_ALGORITHMS[algorithm].verify(
    key,
    Buffer.from(base),
    Buffer.from(signature, 'base64'),
  )
}

describe('RFC 9421', () => {
  test.each([
    {
      section: 'B.2.5',
      key: KEYS.hmac,
      input: '("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
      lines: [
        '"date": Tue, 20 Apr 2021 02:07:55 GMT',
        '"@authority": example.com',
        '"content-type": application/json',
      ],
      signature: 'pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=',
    },
    {
      section: 'B.2.6',
      key: KEYS.ed25519,
      input:
        '("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"',
      lines: [
        '"date": Tue, 20 Apr 2021 02:07:55 GMT',
        '"@method": POST',
        '"@path": /foo',
        '"@authority": example.com',
        '"content-type": application/json',
        '"content-length": 18',
      ],
      signature:
        'wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==',
    },
  ])(
    '$section: the base is built, and the signature verified',
    ({ key, input, lines, signature }) => {
      const base = buildSignatureBase(
        REQUEST,
        joinHeaders(REQUEST),
        parseSignatureInput(`sig=${input}`),
      )
      expect(base).toBe([...lines, `"@signature-params": ${input}`].join('\n'))
      expect(verify(key, base, signature)).toBe(true)
      expect(verify(key, `${base} `, signature)).toBe(false)
    },
  )

  test('B.2.4: the signature of the given base is verified, r and s of 32 bytes each', () => {
    const base = [
      '"@status": 200',
      '"content-type": application/json',
      '"content-digest": sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:',
      '"content-length": 23',
      '"@signature-params": ("@status" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-ecc-p256"',
    ].join('\n')
    const signature =
      'wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw=='
    expect(verify(KEYS.ecdsa, base, signature)).toBe(true)
    expect(verify(KEYS.ecdsa, `${base} `, signature)).toBe(false)
  })

  test('RFC 9530: the digest of the request is that of its body', () => {
    const digest = REQUEST.rawHeaders[7] ?? ''
    expect(() => checkContentDigest(digest, REQUEST.body)).not.toThrow()
    expect(() => checkContentDigest(digest, Buffer.from('{"hello":"world"}'))).toThrow('sha-512')
  })
})
