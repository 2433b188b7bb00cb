import { describe, expect, test } from 'vitest'
import { describeRedis, parseRedisUrl } from '../../src/stores/redis-url.ts'

const ACCESS = { username: '', password: '', usesTls: false }
const USUAL = { kind: 'server', ...ACCESS, host: 'h', port: 6379, db: 0 }

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

/** Forms that name several hosts. */
const LISTS: [name: string, url: string, expected: object][] = [
  [
    'the sentinels and the name of the master',
    'redis+sentinel://s1,s2:26380,[::1]/my-master',
    {
      kind: 'sentinel',
      ...ACCESS,
      sentinels: [
        { host: 's1', port: 26379 },
        { host: 's2', port: 26380 },
        { host: '::1', port: 26379 },
      ],
      masterName: 'my-master',
      db: 0,
      sentinelUsername: '',
      sentinelPassword: '',
    },
  ],
  [
    'users and passwords of servers and sentinels, a database, and TLS',
    'rediss+sentinel://u:a%2Fb@s1:1/m/3?sentinel_username=su&sentinel_password=c+%26d',
    {
      kind: 'sentinel',
      username: 'u',
      password: 'a/b',
      usesTls: true,
      sentinels: [{ host: 's1', port: 1 }],
      masterName: 'm',
      db: 3,
      sentinelUsername: 'su',
      sentinelPassword: 'c+&d',
    },
  ],
  [
    'nodes of a cluster',
    'redis+cluster://h1:7000,h2',
    {
      kind: 'cluster',
      ...ACCESS,
      nodes: [
        { host: 'h1', port: 7000 },
        { host: 'h2', port: 6379 },
      ],
    },
  ],
  [
    'nodes of a cluster, a password, and TLS',
    'rediss+cluster://:p@h1:7000/',
    {
      kind: 'cluster',
      username: '',
      password: 'p',
      usesTls: true,
      nodes: [{ host: 'h1', port: 7000 }],
    },
  ],
]

const SCHEME =
  'it must begin with redis://, redis+sentinel:// or redis+cluster://, or with rediss for TLS'
const MASTER =
  'it must name the master after the sentinels, as in redis+sentinel://s1:26379,s2:26379/mymaster'
const PORT = 'a port must be an integer from 1 to 65535'
const PARAMETER_ENCODING = 'a parameter has a % that is not percent-encoded: write %25'
const WHITE_SPACE = 'it has white space: remove it, or write %20 for a blank'
const NUMBER = 'the database must be a number, as in redis://localhost:6379/1'
const ENCODE =
  'it must be redis://user:password@host:port/database; a / ? # or @ of the user or password must be percent-encoded'

const REFUSED: [url: string, rule: string][] = [
  ['http://h', SCHEME],
  ['redis+sentinels://h/m', SCHEME],
  ['redis+sentinel://s1,s2', MASTER],
  ['redis+sentinel://s1,s2/', MASTER],
  ['redis+sentinel://s1/my%20master', MASTER],
  ['redis+sentinel://s1/m/cache', NUMBER.replace(/\S+$/, 'redis+sentinel://s1:26379/mymaster/1')],
  ['redis+sentinel://s1/m?sentinelPassword=p', 'the parameter sentinelPassword is not known'],
  ['redis+sentinel://s1,/m', 'it must name a host'],
  ['redis+sentinel://s1:port/m', PORT],
  ['redis+sentinel://s1:0/m', PORT],
  ['redis://h:0', PORT],
  ['redis+sentinel://s1/m?sentinel_password=secret%', PARAMETER_ENCODING],
  ['redis+sentinel://s1/m?sentinel_password=%ab', PARAMETER_ENCODING],
  ['redis+cluster://h1,h2/1', 'a cluster has no numbered databases: remove what follows /'],
  ['redis+cluster://', 'it must name a host'],
  ['redis+cluster://h1:70000', PORT],
  ['redis+cluster://h1?sentinel_password=p', 'the parameter sentinel_password is not known'],
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
  [
    'redis://h1:6379,h2:6379',
    'it names several hosts: begin it with redis+sentinel:// or redis+cluster://',
  ],
  ['redis://h?commandTimeout=9', 'the parameter commandTimeout is not known'],
]

describe('the URL of a Redis', () => {
  test.each(FORMS)('may have %s', (_name, url, expected) => {
    expect(parseRedisUrl(url)).toEqual({ ...USUAL, ...expected })
  })

  test.each(LISTS)('may name %s', (_name, url, expected) => {
    expect(parseRedisUrl(url)).toEqual(expected)
  })

  test.each(REFUSED)('%j is refused, with the rule that it breaks', (url, rule) => {
    expect(() => parseRedisUrl(url)).toThrow(
      expect.objectContaining({ name: 'StartError', message: `REDIS_URL: ${rule}` }),
    )
  })

  test('is described without its credentials', () => {
    expect(describeRedis('redis://u:secret@h')).toBe('Redis at h:6379')
    expect(describeRedis('rediss://:secret@[::1]:6380/20')).toBe('Redis at [::1]:6380/20')
    expect(describeRedis('redis+sentinel://:secret@s1,s2:1/m/2?sentinel_password=secret')).toBe(
      'Redis master m/2 of the sentinels s1:26379, s2:1',
    )
    expect(describeRedis('redis+cluster://:secret@h1:7000,h2:7001')).toBe(
      'Redis Cluster at h1:7000, h2:7001',
    )
  })
})
