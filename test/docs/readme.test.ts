/** Each code block of the README is run, or compared with the file that it describes. */
import { spawn } from 'node:child_process'
import { readFile, stat } from 'node:fs/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parse } from 'yaml'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { SECRET } from '../support/client.ts'
import { hasCurl, hasPython } from '../support/languages.ts'
import { createTemporaryFolder } from '../support/process.ts'
import { runProgram } from '../support/run-program.ts'
import { until } from '../support/until.ts'

const ROOT = new URL('../../', import.meta.url)
const README = await readFile(new URL('README.md', ROOT), 'utf8')
const BLOCKS = Array.from(README.matchAll(/^```(\w+)\n(.*?)^```$/gms), ([, language, code]) => ({
  language: language as string,
  code: code as string,
}))
const [START, SEND, RESPONSES, TEST, NODE, PYTHON, ORDER, STORES, CONTAINER, ...MORE] = BLOCKS.map(
  ({ code }) => code,
) as [string, string, string, string, string, string, string, string, string, ...string[]]

/** A slow machine compiles the service, and creates a database. */
const START_TIMEOUT_MS = 120_000

describe('the README', () => {
  test('has a code block for each of the tests below, and no other', () => {
    const languages = ['sh', 'sh', 'http', 'sh', 'js', 'python', 'sh', 'sh', 'sh']
    expect(BLOCKS.map(({ language }) => language)).toEqual(languages)
    expect(MORE).toEqual([])
  })

  test('shows a small picture', async () => {
    const [, path = ''] = /!\[[^\]]+\]\(([^)]+)\)/.exec(README) ?? []
    expect((await stat(new URL(path, ROOT))).size).toBeLessThan(60_000)
  })

  test('installs and tests with commands of package.json', async () => {
    const { scripts } = JSON.parse(await readFile(new URL('package.json', ROOT), 'utf8'))
    expect(START).toBe('npm ci && npm start\n')
    expect(TEST).toBe('npm ci && npm test\n')
    expect(scripts).toMatchObject({ start: 'node dist/main.js serve', test: 'vitest run' })
  })

  test('starts services of docker-compose.yml, with a profile of it', async () => {
    const { services } = parse(await readFile(new URL('docker-compose.yml', ROOT), 'utf8'))
    expect(services.service.profiles).toEqual(['service'])
    expect(STORES).toBe('docker compose up --wait\nnpm start\n')
    expect(CONTAINER).toBe('docker compose --profile service up --build --wait\n')
  })

  test.runIf(hasCurl)(
    'has commands that start the service, and send an order as it shows, within the rate limit',
    async () => {
      const { port, env } = await startAsShown()
      const output = await run('bash', SEND, port, env)
      expectLinesInOrder(mask(output), mask(RESPONSES))
      const [first, second, ...more] = output.match(/^\{"order":.*$/gm) ?? []
      expect([second, more]).toEqual([first, []])

      const program = await run(process.execPath, NODE, port, env, ['--input-type=module', '-'])
      expect(program).toBe(`201 ${first}\n`)
      if (hasPython) expect(await run('python3', PYTHON, port, env, ['-'])).toBe(`201 ${first}\n`)

      const command = ORDER.replaceAll('\n', ' --url http://127.0.0.1:8080\n')
      const reports = await run('bash', command, port, env)
      expect(reports).toContain('New order created. Idempotency key: key-002\n')
      expect(reports).toContain('Sent 3 times, created once: ')
    },
  )
})

/** Runs `npm start` on a free port, with a new database; it is stopped when the test is finished. */
async function startAsShown() {
  const port = await freePort()
  const env = { PATH: process.env.PATH, HMAC_SECRET: SECRET }
  const child = spawn('npm', ['start'], {
    cwd: ROOT,
    env: { ...env, PORT: `${port}`, STORES: 'embedded', DATA_DIR: await createTemporaryFolder() },
    stdio: 'ignore',
    detached: true, // so that the service can be stopped together with npm
  })
  /** @returns whether a process of the group was there: the service ends later than npm */
  const signal = (name: NodeJS.Signals | 0) => {
    try {
      return process.kill(-(child.pid as number), name)
    } catch {
      return false
    }
  }
  const stop = () => signal('SIGTERM')
  process.once('exit', stop)
  onTestFinished(async () => {
    stop()
    await until(() => !signal(0))
    process.off('exit', stop)
  })
  const isReady = () =>
    fetch(`http://127.0.0.1:${port}/health/ready`).then(
      ({ ok }) => ok,
      () => false,
    )
  await until(isReady, START_TIMEOUT_MS)
  return { port, env }
}

/** Runs a block of the README, for a service at this port. @returns what it printed on stdout */
async function run(
  program: string,
  code: string,
  port: number,
  env: NodeJS.ProcessEnv,
  args: string[] = [],
): Promise<string> {
  const stdin = code.replaceAll(':8080', `:${port}`)
  const result = await runProgram([program, ...args], { env, stdin })
  expect(result.code, result.stderr).toBe(0)
  return result.stdout
}

/** Replaces what differs in each order: its id and its time. */
const mask = (output: string) =>
  output
    .replaceAll('\r', '')
    .replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, '<uuid>')
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')

/** Expects each line of the excerpt in the output, in the same order. */
function expectLinesInOrder(output: string, excerpt: string): void {
  const lines = output.split('\n')
  for (const line of excerpt.trim().split('\n')) {
    const found = lines.indexOf(line)
    expect(found, `${line}\nin:\n${lines.join('\n')}`).not.toBe(-1)
    lines.splice(0, found + 1)
  }
}
