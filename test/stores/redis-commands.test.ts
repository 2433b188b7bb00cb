import { Redis } from 'ioredis'
import { describe, expect, test, vi } from 'vitest'
import { createTestStores, startInstance } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'

/** The oldest Redis that the scripts are written for. */
const OLDEST = 6.0

/** Since which version Redis has each command, and each of its options, that a script may use. */
const SINCE: Record<string, { command: number; options?: Record<string, number> }> = {
  GET: { command: 1.0 },
  SET: {
    command: 1.0,
    options: { EX: 2.6, PX: 2.6, NX: 2.6, XX: 2.6, KEEPTTL: 6.0, GET: 6.2, EXAT: 6.2, PXAT: 6.2 },
  },
  DEL: { command: 1.0 },
  INCR: { command: 1.0 },
  PTTL: { command: 2.6 },
  PEXPIRE: { command: 2.6, options: { NX: 7.0, XX: 7.0, GT: 7.0, LT: 7.0 } },
  PUBLISH: { command: 2.0 },
  GETEX: { command: 6.2 },
  GETDEL: { command: 6.2 },
  PEXPIRETIME: { command: 7.0 },
}

/** Members of `redis` that scripts have had since 2.6. */
const OLD_API = ['call', 'pcall', 'error_reply', 'status_reply', 'sha1hex', 'log']

/** The scripts that the service defines, by name. */
async function collectScripts(): Promise<Map<string, string>> {
  const defineCommand = vi.spyOn(Redis.prototype, 'defineCommand')
  try {
    await startInstance(await createTestStores())
    return new Map(defineCommand.mock.calls.map(([name, { lua }]) => [name, String(lua)]))
  } finally {
    defineCommand.mockRestore()
  }
}

/** The calls of a script: the command and its options, which are literals in capital letters. */
function parseCalls(lua: string): { command: string; options: string[] }[] {
  return Array.from(lua.matchAll(/redis\.p?call\(([^\n]*)/g), ([, args = '']) => {
    const [command = '', ...options] = Array.from(args.matchAll(/'([A-Z]+)'/g), ([, word]) => word)
    return { command, options: options as string[] }
  })
}

describe.runIf(hasRedis)('the scripts of the service', () => {
  test('use no command, option or function that is newer than Redis 6.0', async () => {
    const scripts = await collectScripts()
    expect([...scripts.keys()]).toEqual(
      expect.arrayContaining(['claimRecords', 'completeRecords', 'renewRecord', 'releaseRecord']),
    )
    expect(scripts.size).toBeGreaterThanOrEqual(6)
    for (const [name, lua] of scripts) {
      const calls = parseCalls(lua)
      // One call a line, with a literal command.
      expect(calls.length, name).toBe(lua.match(/redis\.p?call/g)?.length)
      for (const { command, options } of calls) {
        expect(SINCE[command]?.command, `${name}: ${command}`).toBeLessThanOrEqual(OLDEST)
        for (const option of options) {
          const since = SINCE[command]?.options?.[option]
          expect(since, `${name}: ${command} ${option}`).toBeLessThanOrEqual(OLDEST)
        }
      }
      for (const [, member] of lua.matchAll(/redis\.(\w+)/g)) expect(OLD_API).toContain(member)
    }
  })

  test('are searched for new commands and options', () => {
    expect(
      parseCalls("redis.call('SET', KEYS[1], v, 'PX', t, 'GET')\nredis.pcall('GETEX', k)"),
    ).toEqual([
      { command: 'SET', options: ['PX', 'GET'] },
      { command: 'GETEX', options: [] },
    ])
  })
})
