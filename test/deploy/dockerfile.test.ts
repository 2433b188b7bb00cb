import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { parseSettings } from '../../src/settings.ts'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import {
  all,
  environmentOf,
  type Instruction,
  isInBuildContext,
  last,
  readDockerfile,
  type Stage,
} from './dockerfile.ts'

const ROOT = new URL('../../', import.meta.url)
const read = (path: string) => readFile(new URL(path, ROOT), 'utf8')

let stages: Stage[]
let service: Stage

beforeAll(async () => {
  stages = await readDockerfile()
  service = stages.at(-1) as Stage
})

const stageNamed = (name: string) => stages.find((stage) => stage.name === name) as Stage
const copies = (stage: Stage) =>
  all(stage, 'COPY').map(({ options, text }) => {
    const paths = text.split(/\s+/)
    return { from: options.from, sources: paths.slice(0, -1), target: paths.at(-1) as string }
  })

describe('the Dockerfile', () => {
  test('builds on one exact Node, of a major version that the tests run on', async () => {
    const images = new Set(stages.map(({ image }) => image))
    expect(images.size).toBe(1)
    const [, major] = /^node:(\d+)\.\d+\.\d+-bookworm-slim$/.exec([...images].join()) ?? []
    expect(await read('.ci/run')).toContain(`--package=node@${major} `)
    const { engines } = JSON.parse(await read('package.json'))
    expect(Number(major)).toBeGreaterThanOrEqual(Number.parseFloat(engines.node.slice(2)))
  })

  test('copies only what is there, and not kept out by .dockerignore', async () => {
    for (const stage of stages) {
      for (const { from, sources } of copies(stage)) {
        if (from !== undefined) expect(stages.map(({ name }) => name)).toContain(from)
        else
          for (const source of sources)
            expect([source, await isInBuildContext(source)]).toEqual([source, true])
      }
    }
  })

  test('lets no secret, no history and no foreign build into the build', async () => {
    for (const path of ['.env', '.git', '.data', 'node_modules', 'dist', 'test']) {
      expect([path, await isInBuildContext(path)]).toEqual([path, false])
    }
  })

  test('compiles with all that the compiler reads', async () => {
    const build = stageNamed('build')
    const { scripts } = JSON.parse(await read('package.json'))
    expect(scripts.build).toBe('tsc --build')
    expect(all(build, 'RUN').map(({ text }) => text)).toEqual([
      'npm ci --ignore-scripts',
      'npm run build',
    ])
    const { include, references = [] } = JSON.parse(await read('tsconfig.json'))
    const sources = copies(build).flatMap((copy) => copy.sources)
    for (const path of [
      'tsconfig.json',
      ...include,
      ...references.map((r: { path: string }) => r.path),
    ]) {
      expect(sources).toContain(path.split('/')[0])
    }
  })

  test('takes no development and no optional package, and runs no install script of one', async () => {
    expect(all(stageNamed('dependencies'), 'RUN').map(({ text }) => text)).toEqual([
      'npm ci --omit=dev --omit=optional --ignore-scripts',
    ])
    const { packages } = JSON.parse(await read('package-lock.json'))
    const needed = Object.entries<Record<string, unknown>>(packages).filter(
      ([, { dev, optional, devOptional }]) => !dev && !optional && !devOptional,
    )
    const withScript = needed.filter(([, { hasInstallScript }]) => hasInstallScript)
    expect(withScript.map(([path]) => path)).toEqual([])
  })

  test('leaves in the image what the service needs, where it looks for it', async () => {
    expect(copies(service)).toEqual([
      { from: 'dependencies', sources: ['/app/node_modules'], target: './node_modules' },
      { from: undefined, sources: ['package.json'], target: './' },
      { from: undefined, sources: ['migrations'], target: './migrations' },
      { from: 'build', sources: ['/app/dist'], target: './dist' },
    ])
    for (const stage of stages) expect(last(stage, 'WORKDIR').text).toBe('/app')
    const [program, script] = JSON.parse(last(service, 'CMD').text)
    expect(program).toBe('node')
    expect(existsSync(new URL(script, ROOT))).toBe(true)
  })

  test('does not run as root, nor any command as root in the image that is shipped', () => {
    expect(last(service, 'USER').text).toMatch(/^[1-9]\d*:[1-9]\d*$/)
    expect(all(service, 'RUN')).toEqual([])
  })

  test('listens where the outside reaches it, and insists on the settings of production', () => {
    const env = environmentOf(service)
    expect(() => parseSettings(env)).toThrow(/HMAC_SECRET.*DATABASE_URL.*REDIS_URL/)
    const settings = parseSettings({
      ...env,
      HMAC_SECRET: 'x'.repeat(32),
      DATABASE_URL: 'postgres://postgres/orders',
      REDIS_URL: 'redis://redis',
    })
    expect(settings).toMatchObject({ production: true, host: '0.0.0.0', port: 8080 })
    expect(last(service, 'EXPOSE').text).toBe(`${settings.port}`)
  })

  describe('has a health check that', () => {
    test('is well if /health/live answers 200, and ill if it answers another status', async () => {
      const asked: (string | undefined)[] = []
      const statuses = [200, 503]
      const server = createServer((request, response) => {
        asked.push(request.url)
        response.writeHead(statuses.shift() ?? 500).end()
      }).listen(0, '127.0.0.1')
      await once(server, 'listening')
      onTestFinished(() => void server.close())
      const { port } = server.address() as AddressInfo
      expect(await exitCodeOf(healthCheck(last(service, 'HEALTHCHECK'), port))).toBe(0)
      expect(await exitCodeOf(healthCheck(last(service, 'HEALTHCHECK'), port))).toBe(1)
      expect(asked).toEqual(['/health/live', '/health/live'])
    })

    test('is ill if nothing listens', async () => {
      const check = healthCheck(last(service, 'HEALTHCHECK'), await freePort())
      expect(await exitCodeOf(check)).toBe(1)
    })
  })
})

/** Runs the health check as Docker does: without a shell, in the environment of the image. */
function healthCheck({ text }: Instruction, port: number): ChildProcess {
  const [, ...command] = /^CMD\s+(\[.*\])$/.exec(text) ?? []
  const [program, ...args] = JSON.parse(command[0] as string)
  expect(program).toBe('node')
  return spawn(process.execPath, args, { env: { PORT: `${port}` }, stdio: 'ignore' })
}

async function exitCodeOf(child: ChildProcess): Promise<number> {
  const [code] = await once(child, 'exit')
  return code
}
