import { describe, expect, test } from 'vitest'
import manifest from '../package.json' with { type: 'json' }
import { runBinary } from './support/process.ts'

const HELP =
  /^order-once creates an order exactly once.*\n\n {2}order-once serve .*\n {2}order-once migrate .*\n {2}order-once cleanup .*\n {2}order-once order .*\n {2}order-once keygen .*\n/

describe('the binary', () => {
  test.each(['--help', '-h'])('prints its commands with %s', async (flag) => {
    expect(await runBinary([flag])).toEqual({
      code: 0,
      stdout: expect.stringMatching(HELP),
      stderr: '',
    })
  })

  test('exits with 2 and prints its commands without a command', async () => {
    expect(await runBinary([])).toEqual({
      code: 2,
      stdout: '',
      stderr: expect.stringMatching(HELP),
    })
  })

  test.each(['serve', 'migrate', 'cleanup'])('prints its commands with %s --help', async (name) => {
    expect((await runBinary([name, '--help'])).stdout).toMatch(HELP)
  })

  test('exits with 2 and one line for arguments of a command that has none', async () => {
    expect(await runBinary(['serve', '--port', '1'])).toEqual({
      code: 2,
      stdout: '',
      stderr: 'order-once serve takes no arguments, but settings: see order-once --help\n',
    })
  })

  test('prints its version', async () => {
    expect(await runBinary(['--version'])).toMatchObject({
      code: 0,
      stdout: `${manifest.version}\n`,
    })
  })

  test('exits with 2 and one line for an unknown command', async () => {
    expect(await runBinary(['serv'])).toEqual({
      code: 2,
      stdout: '',
      stderr: 'order-once: unknown command "serv"; see order-once --help\n',
    })
  })

  test.each([
    ['serve', 'order-once cannot start'],
    ['migrate', 'order-once migrate failed'],
    ['cleanup', 'the clean-up did not end'],
  ])('exits with 1 and one line if %s fails on a setting', async (command, subject) => {
    expect(await runBinary([command], { PORT: 'http' })).toEqual({
      code: 1,
      stdout: '',
      stderr: `${subject}: PORT must be an integer from 0 to 65535\n`,
    })
  })
})
