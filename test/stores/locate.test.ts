import { describe, expect, inject, test } from 'vitest'
import { parseSettings } from '../../src/settings.ts'
import { locateStores } from '../../src/stores/locate.ts'
import { SILENT_LOG } from '../support/silent-log.ts'
import { hasRedis } from '../support/stores.ts'

/** Port 1 is reserved, and nothing listens on it. */
const NO_POSTGRES = 'postgres://order_once@127.0.0.1:1/order_once'
const NO_REDIS = 'redis://127.0.0.1:1'
const NONE = { databaseUrl: NO_POSTGRES, redisUrl: NO_REDIS }

const locate = (env: Record<string, string>, compose: typeof NONE) =>
  locateStores(parseSettings(env), SILENT_LOG, compose)

describe('the stores', () => {
  test('are those of DATABASE_URL and REDIS_URL, whether they respond or not', async () => {
    const env = { DATABASE_URL: 'postgres://db/orders', REDIS_URL: 'redis://cache' }
    expect(await locate(env, NONE)).toMatchObject({
      databaseUrl: 'postgres://db/orders',
      redisUrl: 'redis://cache',
    })
  })

  test('are embedded for the one whose URL is not set', async () => {
    expect(await locate({ DATABASE_URL: 'postgres://db/orders' }, NONE)).toEqual({
      databaseUrl: 'postgres://db/orders',
      redisUrl: undefined,
      reason: 'DATABASE_URL is set, REDIS_URL is not',
    })
    expect(await locate({ REDIS_URL: 'redis://cache' }, NONE)).toEqual({
      databaseUrl: undefined,
      redisUrl: 'redis://cache',
      reason: 'REDIS_URL is set, DATABASE_URL is not',
    })
  })

  test('are embedded if neither URL is set and the services of compose do not respond', async () => {
    expect(await locate({}, NONE)).toEqual({
      databaseUrl: undefined,
      redisUrl: undefined,
      reason: 'neither DATABASE_URL nor REDIS_URL is set, and docker-compose.yml is not up',
    })
  })

  test('stop the start if only Postgres of compose responds, with a message that names Redis', async () => {
    const compose = { ...NONE, databaseUrl: inject('postgresUrl') }
    await expect(locate({}, compose)).rejects.toThrow(
      /Postgres at 127\.0\.0\.1:\d+\/postgres responds but Redis at 127\.0\.0\.1:1 does not/,
    )
  })

  test('are not those of compose if they have another password', async () => {
    const url = new URL(inject('postgresUrl'))
    url.password = 'wrong'
    expect(await locate({}, { ...NONE, databaseUrl: url.href })).toMatchObject({
      databaseUrl: undefined,
    })
  })

  describe.runIf(hasRedis)('with a Redis', () => {
    test('are those of compose if both respond', async () => {
      const compose = { databaseUrl: inject('postgresUrl'), redisUrl: inject('redisUrl') }
      expect(await locate({}, compose)).toEqual({
        ...compose,
        reason: 'the services of docker-compose.yml respond',
      })
    })

    test('are not those of compose if STORES is embedded', async () => {
      const compose = { databaseUrl: inject('postgresUrl'), redisUrl: inject('redisUrl') }
      expect(await locate({ STORES: 'embedded' }, compose)).toMatchObject({
        databaseUrl: undefined,
        redisUrl: undefined,
      })
    })

    test('stop the start if only Redis of compose responds, with a message that names Postgres', async () => {
      await expect(locate({}, { ...NONE, redisUrl: inject('redisUrl') })).rejects.toThrow(
        /Redis at 127\.0\.0\.1:\d+ responds but Postgres at 127\.0\.0\.1:1\/order_once does not/,
      )
    })
  })
})
