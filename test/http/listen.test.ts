import { describe, expect, test } from 'vitest'
import { listen } from '../../src/http/listen.ts'

/** A server that cannot listen for this reason. */
const failWith = (code: string) => ({
  listen: async () => {
    throw Object.assign(new Error(`listen ${code}`), { code })
  },
})

describe('an app that cannot listen', () => {
  test.each([
    [
      'EADDRINUSE',
      'port 80 on ::1 is in use: stop the program that uses it, or set METRICS_PORT to another port',
    ],
    ['EACCES', 'port 80 on ::1 is not allowed for this user: set METRICS_PORT to 1024 or more'],
    [
      'EADDRNOTAVAIL',
      'cannot listen on METRICS_HOST ::1 and METRICS_PORT 80: listen EADDRNOTAVAIL',
    ],
  ])('names the setting and the remedy after %s', async (code, message) => {
    const names = { hostSetting: 'METRICS_HOST', portSetting: 'METRICS_PORT' }
    const options = { host: '::1', port: 80, ...names }
    await expect(listen(failWith(code), options)).rejects.toThrow(
      expect.objectContaining({ name: 'StartError', message }),
    )
  })
})
