import { describe, expect, test } from 'vitest'
import { describeRedis, parseRedisUrl } from '../../src/stores/redis-url.ts'

const USUAL = { host: 'h', port: 6379, username: '', password: '', db: 0, usesTls: false }

const FORMS: [name: string, url: string, expected: Partial<typeof USUAL>][] = [
  ['only a host', 'redis://h', {}],
  ['a slash', 'redis://h/', {}],
  ['a port and a database', 'redis://h:6380/15', { port: 6380, db: 15 }],
  ['a password', 'redis://:pass@h', { password: 'pass' }],
  ['a user and a password', 'redis://u:pass@h', { username: 'u', password: 'pass' }],
  [
    'reserved characters',
    'redis://u%3A:%2F%3F%23%40%25%20%C3%A9@h',
    { username: 'u:', password: '/?#@% é' },
  ],
  [
    'TLS',
    'rediss://default:pass@h:6380',
    { port: 6380, username: 'default', password: 'pass', usesTls: true },
  ],
  ['an IPv6 address', 'redis://[::1]:6380/1', { host: '::1', port: 6380, db: 1 }],
]

const WHITE_SPACE = 'it has white space: remove it, or write %20 for a blank'
const NUMBER = 'the database must be a number, as in redis://localhost:6379/1'
const ENCODE =
  'it must be redis://user:password@host:port/database; a / ? # or @ of the user or password must be percent-encoded'

const REFUSED: [url: string, rule: string][] = [
  ['http://h', 'it must begin with redis:// or rediss://'],
  ['redis://h/cache', NUMBER],
  ['redis://h/-1', NUMBER],
  ['redis://h/0/1', NUMBER],
  ['redis://h/1.5', NUMBER],
  ['redis://', 'it must name a host'],
  ['redis:///1', 'it must name a host'],
  ['redis://h/1\n', WHITE_SPACE],
  ['redis://:se cret@h', WHITE_SPACE],
  ['redis://:secret%@h', 'the password has a % that is not percent-encoded: write %25'],
  ['redis://u%:secret@h', 'the user has a % that is not percent-encoded: write %25'],
  ['redis://:secret/1@h', ENCODE],
  ['redis://:secret#1@h', ENCODE],
  ['redis://h1:6379,h2:6379', ENCODE],
  ['redis://h?commandTimeout=9', 'the parameter commandTimeout is not known'],
]

describe('the URL of a Redis', () => {
  test.each(FORMS)('may have %s', (_name, url, expected) => {
    expect(parseRedisUrl(url)).toEqual({ ...USUAL, ...expected })
  })

  test.each(REFUSED)('%j is refused, with the rule that it breaks', (url, rule) => {
    expect(() => parseRedisUrl(url)).toThrow(
      expect.objectContaining({ name: 'StartError', message: `REDIS_URL: ${rule}` }),
    )
  })

  test('is described without its credentials', () => {
    expect(describeRedis('redis://u:secret@h')).toBe('Redis at h:6379')
    expect(describeRedis('rediss://:secret@[::1]:6380/20')).toBe('Redis at [::1]:6380/20')
  })
})
