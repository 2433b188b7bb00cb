/** Random requests: valid, nearly valid and nonsense. */
import fc from 'fast-check'
import { sign } from '../support/client.ts'
import { createKeys } from '../support/message-signature.ts'
import type { HeaderLine, MessageSignature, WireRequest } from './contract.ts'

/** Mostly the usual value: of several errors in a request, only the first one is reported. */
const mostly = <T>(usual: fc.Arbitrary<T>, ...odd: fc.Arbitrary<T>[]) =>
  fc.oneof(
    { weight: 4 * odd.length, arbitrary: usual },
    ...odd.map((arbitrary) => ({ weight: 1, arbitrary })),
  )

// Bodies

const character = fc.string({ unit: 'binary', minLength: 1, maxLength: 1 })

/** Well-formed Unicode, within each limit of its length and beyond. */
const text = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 40 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.tuple(character, fc.integer({ min: 254, max: 256 })).map(([one, times]) => one.repeat(times)),
  fc.constantFrom(' ', '\t\n', '\u3000', '\u00a0', '\u200b', '\ufeff', 'a\0b', '\0', "'; --", '%s'),
)

const oddText = fc.oneof(
  // Code units, with lone surrogates.
  fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)) }),
  fc.string({ minLength: 4_000, maxLength: 5_000 }),
)

/** At most 11 digits before the point and 4 after it. */
const amount = fc
  .tuple(fc.integer({ min: 0, max: 99_999_999_999 }), fc.integer({ min: 0, max: 9_999 }))
  .map(([whole, decimals]) => `${whole}.${String(decimals).padStart(4, '0')}`)

/** A number as text: in any notation and of any size, also those that JSON.stringify never writes. */
const number = fc.oneof(
  fc.constantFrom('99999999999.9999', '99999999999.99991', '99999999999.99999', '100000000000'),
  fc.double().map(String),
  fc.double({ min: 0, max: 2e11 }).map(String),
  fc
    .tuple(amount, fc.integer({ min: -30, max: 30 }))
    .map(([digits, exponent]) => `${digits}e${exponent}`),
  fc.tuple(amount, fc.stringMatching(/^\d{1,20}$/)).map(([digits, more]) => digits + more),
  fc.constantFrom(
    ...['0', '-0', '0.0', '0.0001', '0.00009', '1e-4', '1e-5', '1E+2', '1e400', '-1e400', '1e-400'],
    ...['9007199254740993', '1'.repeat(400), `1.${'0'.repeat(400)}1`],
    ...['01', '.5', '5.', '+1', '0x10', '1_0', 'NaN', 'Infinity', '1e', '--1', '1 0'],
  ),
)

/** A JSON text, or nearly one. */
const value = fc.oneof(
  number,
  oddText.map((odd) => JSON.stringify(odd)),
  fc.json({ maxDepth: 3 }),
  // As deep as the largest body allows: a recursive parser would overflow its stack.
  fc.constant('['.repeat(2_000) + ']'.repeat(2_000)),
  fc.constantFrom('"\\ud800"', '"\\udd8a\\ud83e"', '"\\u0000"', '"\\x41"', '"\n"', "'a'", ''),
)

const NAMES = [
  ...['user_id', 'item', 'amount', 'User_id', 'user_id ', 'idempotency_key', 'id', 'created_at'],
  ...['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'toJSON', ''],
]

type Member = [name: string, value: string]
const member = (name: string, usual: fc.Arbitrary<string>) =>
  fc.tuple(fc.constant(name), usual) as fc.Arbitrary<Member>
const quoted = text.map((plain) => JSON.stringify(plain))

const members = fc.tuple(
  member('user_id', quoted),
  member('item', quoted),
  member('amount', amount),
)
const oddMember: fc.Arbitrary<Member> = fc.tuple(
  fc.oneof(fc.constantFrom(...NAMES), fc.string()),
  fc.oneof(value, quoted, amount),
)
const space = fc.constantFrom('', '', ' ', '\r\n\t')

const object = (of: fc.Arbitrary<Member[]>) =>
  fc
    .tuple(of, space)
    .map(([all, gap]) =>
      Buffer.from(
        `{${gap}${all.map(([name, one]) => `${JSON.stringify(name)}${gap}:${gap}${one}`).join(`${gap},`)}}${gap}`,
      ),
    )

const order = object(members.chain((three) => fc.shuffledSubarray(three, { minLength: 3 })))

/** One member is replaced, missing, or there twice. */
const nearlyOrder = fc.oneof(
  object(fc.tuple(members, number).map(([three, odd]) => three.with(2, ['amount', odd]))),
  object(
    fc.tuple(members, oddMember, fc.nat(2)).map(([three, odd, index]) => three.with(index, odd)),
  ),
  object(
    fc
      .tuple(members, value, fc.nat(2))
      .map(([three, odd, index]) =>
        three.map(([name, usual], i): Member => [name, i === index ? odd : usual]),
      ),
  ),
  object(
    fc
      .tuple(members, fc.array(oddMember, { maxLength: 2 }))
      .chain(([three, odd]) => fc.shuffledSubarray([...three, ...odd], { minLength: 2 })),
  ),
)

/** An order with other bytes in it, or without its end. */
const mutatedOrder = fc
  .tuple(
    order,
    fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }),
    fc.option(fc.nat(), { nil: undefined, freq: 4 }),
  )
  .map(([bytes, changes, end]) => {
    const mutated = Buffer.from(bytes)
    for (const [index, byte] of changes) mutated[index % mutated.length] = byte
    return mutated.subarray(0, end === undefined ? undefined : end % mutated.length)
  })

const json = fc.json().map((any) => Buffer.from(any))
const bytes = fc.uint8Array({ maxLength: 100 }).map((any) => Buffer.from(any))

export const anyBody = fc.oneof(
  { weight: 4, arbitrary: order },
  { weight: 4, arbitrary: nearlyOrder },
  { weight: 2, arbitrary: mutatedOrder },
  { weight: 1, arbitrary: json },
  { weight: 1, arbitrary: bytes },
)

// Headers

/** What Node's client can send: a tab, visible ASCII and Latin-1. */
const headerText = fc.string({
  unit: fc
    .oneof(
      { weight: 8, arbitrary: fc.integer({ min: 0x20, max: 0x7e }) },
      { weight: 2, arbitrary: fc.integer({ min: 0x80, max: 0xff }) },
      { weight: 1, arbitrary: fc.constant(0x09) },
    )
    .map((code) => String.fromCharCode(code)),
  maxLength: 300,
})

/** The values of one header: the usual one, none, an odd one, or two. */
const lines = (usual: fc.Arbitrary<string>, odd: fc.Arbitrary<string>) =>
  mostly<string[]>(
    fc.tuple(usual),
    fc.constant([]),
    fc.tuple(odd),
    fc.tuple(usual, fc.oneof(usual, odd)),
  )

/** The values of a header that most requests do not have. */
const optional = (odd: fc.Arbitrary<string>) =>
  mostly<string[]>(fc.constant([]), fc.array(odd, { minLength: 1, maxLength: 2 }))

const mediaType = fc.constantFrom(
  ...['application/json', 'Application/JSON', 'application/json; charset=utf-8'],
  'application/json;charset="UTF-8"',
)
const otherMediaType = fc.oneof(
  headerText,
  fc.constantFrom(
    ...['text/plain', 'application/jsonp', 'application/problem+json', 'application/*', '*/*'],
    ...['application/json, text/plain', 'application', '/', 'application/', ';', '', '__proto__'],
  ),
)

/**
 * A placeholder for a key that no request had before; `fuzz.test.ts` replaces it. So a case is a new
 * order even when fast-check runs it again to shrink it.
 */
export const NEW_KEY = '(a new key)'
const newKey = fc.constantFrom(NEW_KEY, `"${NEW_KEY}"`)

/** Keys that other cases have, too, keys of about the greatest length, and invalid ones. */
const otherKey = fc.oneof(
  fc.constantFrom('a', 'b', '"a"', ' a\t'),
  fc.constantFrom('"', '""', '"a', 'a b', 'a,b', 'a\\', '"a"b"', '""a""'),
  fc.string({ unit: fc.constantFrom(...'!#+-.:=AZ[]_az{|}~'), minLength: 1, maxLength: 40 }),
  fc.integer({ min: 253, max: 257 }).map((length) => 'k'.repeat(length)),
  headerText,
)

const signatureLines = (body: Buffer) => {
  const right = sign(body)
  const padded = Buffer.concat([body, Buffer.from(' ')])
  return lines(
    fc.constantFrom(right, right.toUpperCase()),
    fc.oneof(
      headerText,
      fc.constantFrom(...['0'.repeat(64), right.slice(1), `${right}0`, '', sign(padded)]),
    ),
  )
}

const requestId = fc.oneof(headerText, fc.uuid(), fc.stringMatching(/^[\w.:+/=-]{1,130}$/))
const prefer = fc.oneof(
  headerText,
  fc.constantFrom('wait=1', 'wait=99999999999', 'wait="5"', 'respond-async, wait=3', 'wait=-1'),
)

const framing = (body: Buffer) =>
  fc.constantFrom(
    ['Content-Length', String(body.length)] as const,
    ['Transfer-Encoding', 'chunked'] as const,
  )

// Requests

/** The keys of the client that signs messages. */
export const KEYS = createKeys()

/** Either scheme. */
const scheme = fc.constantFrom<(MessageSignature | undefined)[]>(
  undefined,
  ...KEYS.map((key) => ({ key })),
)

/** A request with a new key, any body and its signature. */
export const withAnyBody: fc.Arbitrary<WireRequest> = anyBody.chain((body) =>
  fc.tuple(framing(body), scheme).map(([[name, value], messageSignature]) => ({
    method: 'POST',
    path: '/orders',
    messageSignature,
    headers: [
      ['Content-Type', 'application/json'],
      ['Idempotency-Key', NEW_KEY],
      ['X-Signature', sign(body)],
      [name, value],
    ],
    body,
  })),
)

/** Two orders, so that a key is repeated with the same and with another body; and an invalid one. */
const plainBody = fc
  .constantFrom(1, 1, 2, 2, -1)
  .map((amount) => Buffer.from(`{"user_id":"user-1","item":"book","amount":${amount}}`))

/** A request with any headers. */
export const withAnyHeaders: fc.Arbitrary<WireRequest> = plainBody.chain((body) =>
  fc
    .record({
      'Content-Type': lines(mediaType, otherMediaType),
      'Content-Encoding': optional(fc.oneof(headerText, fc.constantFrom('gzip', 'identity', ''))),
      'Idempotency-Key': lines(newKey, otherKey),
      'X-Signature': signatureLines(body),
      'X-Request-Id': optional(requestId),
      Prefer: optional(prefer),
      Expect: optional(fc.constantFrom('100-continue', 'a miracle')),
      'X-Other': optional(headerText),
      'Content-Length': fc.constant([String(body.length)]),
    })
    .map((headers) => ({
      method: 'POST',
      path: '/orders',
      headers: Object.entries(headers).flatMap(([name, values]) =>
        values.map((value): [string, string] => [name, value]),
      ),
      body,
    })),
)

const COVERED = ['content-type', 'content-digest', 'idempotency-key']

/** Changes the value of one header. */
const changeValue =
  (wanted: string, change: (value: string) => string) => (headers: HeaderLine[]) =>
    headers.map(([name, value]): HeaderLine => [name, name === wanted ? change(value) : value])

const flipCharacter = (at: number, bit: number) => (text: string) => {
  const index = at % text.length
  // Visible ASCII stays visible ASCII; the result differs.
  const code = 0x21 + ((text.charCodeAt(index) - 0x21 + 1 + bit) % 94)
  return text.slice(0, index) + String.fromCharCode(code) + text.slice(index + 1)
}

/** What makes a right signature wrong. */
const spoil: fc.Arbitrary<NonNullable<MessageSignature['spoil']>> = fc
  .oneof(
    // a covered header with another character, other text, or sent twice
    fc
      .tuple(fc.constantFrom(...COVERED), fc.nat(), fc.nat(92))
      .map(([name, at, bit]) => changeValue(name, flipCharacter(at, bit))),
    fc
      .tuple(fc.constantFrom('signature-input', 'signature', 'content-digest'), headerText)
      .map(([name, text]) => changeValue(name, () => text)),
    fc
      .constantFrom(...COVERED, 'signature', 'signature-input')
      .map(
        (wanted) => (headers: HeaderLine[]) =>
          headers.flatMap((line): HeaderLine[] => (line[0] === wanted ? [line, line] : [line])),
      ),
    // other parameters
    fc
      .constantFrom('', ';alg="none"', ';alg="hmac-sha512"', ';a', ',b=()')
      .map((end) => changeValue('signature-input', (value) => (end ? value + end : 'sig1=()'))),
    // without a covered component
    fc
      .constantFrom('"@method" ', '"@authority" ', '"@path" ', '"content-digest" ')
      .map((component) => changeValue('signature-input', (value) => value.replace(component, ''))),
  )
  .map((change) => ({ change, code: 'signature-invalid' as const }))

/** A request that is signed with a key: mostly wrongly. */
export const withAnySignature: fc.Arbitrary<WireRequest> = fc
  .record({
    key: fc.constantFrom(...KEYS),
    amount: fc.constantFrom(1, 2, -1),
    idempotencyKey: fc.oneof(newKey, fc.constantFrom('a', 'b', '"a"')),
    spoil: fc.option(
      fc.oneof(
        { weight: 8, arbitrary: spoil },
        {
          weight: 1,
          arbitrary: fc.constantFrom(';expires=1', ';created=1').map((end) => ({
            change: changeValue('signature-input', (value) => value + end),
            code: 'signature-expired' as const,
          })),
        },
        {
          weight: 1,
          arbitrary: fc.constantFrom('signature', 'signature-input').map((missing) => ({
            change: (headers: HeaderLine[]) => headers.filter(([name]) => name !== missing),
            code: 'signature-missing' as const,
          })),
        },
      ),
      { nil: undefined, freq: 3 },
    ),
    // of the other scheme, which does not count
    other: fc.option(headerText, { nil: undefined, freq: 2 }),
  })
  .map(({ key, amount, idempotencyKey, spoil, other }) => {
    const body = Buffer.from(`{"user_id":"user-1","item":"book","amount":${amount}}`)
    const isJudged = spoil?.code !== 'signature-missing'
    return {
      method: 'POST',
      path: '/orders',
      headers: [
        ['Content-Type', 'application/json'],
        ['Content-Length', `${body.length}`],
        ['Idempotency-Key', idempotencyKey],
        ...(other === undefined || !isJudged ? [] : [['X-Signature', other] as HeaderLine]),
      ],
      body,
      messageSignature: { key, spoil },
    }
  })

/** Without CONNECT: Node closes the connection. */
const method = fc.oneof(
  fc.constant('POST'),
  fc.constantFrom('GET', 'HEAD', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE'),
)

const segment = fc.oneof(
  fc.constantFrom('orders', 'problems', 'overloaded', 'invalid-body', '__proto__', '..', '.', ''),
  fc.constantFrom(
    '%6frders',
    'o%72ders',
    'orders%',
    '%zz',
    '%ff',
    '%00',
    '%2f',
    '%2F',
    '%25',
    '%3f',
  ),
  fc.constantFrom('%C0%AF', '%e2%82', '%E2%82%AC', '%ed%a0%80', ';a=b', ':code', '*', '%2e%2e'),
  fc.webSegment(),
  fc.string({
    unit: fc.integer({ min: 0x21, max: 0xff }).map((code) => String.fromCharCode(code)),
  }),
)
const query = fc.constantFrom('', '', '?', '?a=1', '?a=%zz', '?%ff&__proto__=1', '#a', '??', '?a#b')

const path = fc.oneof(
  fc.tuple(
    fc.constantFrom(
      ...['/orders', '/problems/overloaded', '/problems/constructor'],
      ...['/orders/unknown', '/orders/0191c3a0-6d1b-7f7e-9c55-3b8f0f6d2a71'],
    ),
    query,
  ),
  fc.tuple(
    fc.array(segment, { maxLength: 3 }).map((all) => `/${all.join('/')}`),
    query,
  ),
  // Node reads 16 KiB of headers; the other headers of these requests take less than 1 KiB.
  fc.tuple(
    fc
      .oneof(fc.integer({ min: 100, max: 15_000 }), fc.integer({ min: 17_000, max: 20_000 }))
      .map((length) => `/${'a'.repeat(length)}`),
    query,
  ),
)

/** A request with any method and path; its body is signed, and it is an order, another JSON or none. */
export const withAnyPath: fc.Arbitrary<WireRequest> = fc
  .record({
    method,
    path: path.map((parts) => parts.join('')),
    body: mostly(
      fc.constant('{"user_id":"user-1","item":"book","amount":1}'),
      fc.constantFrom('{}', '{', ' '),
    ),
    type: mostly(fc.constant('application/json'), fc.constantFrom('text/plain', 'nonsense')),
    accept: fc.constantFrom('*/*', 'text/html', 'application/json', 'image/png', ';;', ''),
    messageSignature: scheme,
  })
  .map(({ method, path, body, type, accept, messageSignature }) => ({
    messageSignature,
    // A refusal of malformed HTTP has a body, which the client of a HEAD request does not expect.
    method: method === 'HEAD' && !/^[!-~]{1,15000}$/.test(path) ? 'GET' : method,
    path,
    headers: [
      ['Content-Type', type],
      ['Content-Length', String(Buffer.byteLength(body))],
      ['Idempotency-Key', NEW_KEY],
      ['X-Signature', sign(body)],
      ['Accept', accept],
    ],
    body: Buffer.from(body),
  }))
