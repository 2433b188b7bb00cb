import { execFile } from 'node:child_process'
import { copyFile, cp, mkdir, mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import { createEmptyDatabase, emptyRedisSpace, hasRedis } from '../../../test/support/stores.ts'

const run = promisify(execFile)
const resolvePath = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const PACKAGE = resolvePath('..')
const TSC = resolvePath('../../../node_modules/typescript/bin/tsc')
const CONSUMERS = resolvePath('consumers')

/** What is installed from the cache of npm, which `npm ci` fills, if it is there. */
const INSTALL = ['install', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts']

/** The strictest options that do not concern the consumer's own style. */
const TSCONFIG = {
  compilerOptions: {
    target: 'es2023',
    lib: ['es2023'],
    module: 'nodenext',
    types: ['node'],
    strict: true,
    noUncheckedIndexedAccess: true,
    exactOptionalPropertyTypes: true,
    skipLibCheck: false,
  },
}

const ROOT = JSON.parse(await readFile(resolvePath('../../../package.json'), 'utf8'))
const versions: Record<string, string> = { ...ROOT.dependencies, ...ROOT.devDependencies }

let tarball: string
let files: string[]

beforeAll(async () => {
  // A build of its own: that of the checkout may have files of modules that are gone.
  const folder = await mkdtemp(join(tmpdir(), 'package-'))
  for (const name of ['package.json', 'README.md', 'LICENSE', 'sql']) {
    await cp(join(PACKAGE, name), join(folder, name), { recursive: true })
  }
  const output = ['--outDir', join(folder, 'dist'), '--tsBuildInfoFile', join(folder, 'build')]
  await run(process.execPath, [TSC, '-p', PACKAGE, ...output])
  const args = ['pack', '--json', '--ignore-scripts']
  const [packed] = JSON.parse((await run('npm', args, { cwd: folder })).stdout)
  tarball = join(folder, packed.filename)
  files = packed.files.map(({ path }: { path: string }) => path)
})

/** Creates an application in a folder of its own, with the package, and compiles it. */
async function installConsumer(program: string, dependencies: Record<string, string | undefined>) {
  const folder = await mkdtemp(join(tmpdir(), 'consumer-'))
  const packageJson = {
    type: 'module',
    dependencies: { '@order-once/idempotency': `file:${tarball}`, ...dependencies },
    devDependencies: { '@types/node': versions['@types/node'] },
  }
  await writeFile(join(folder, 'package.json'), JSON.stringify(packageJson))
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(TSCONFIG))
  await mkdir(join(folder, 'src'))
  for (const name of ['application', program]) {
    await copyFile(join(CONSUMERS, `${name}.ts`), join(folder, 'src', `${name}.ts`))
  }
  await run('npm', INSTALL, { cwd: folder })
  const compile = () => run(process.execPath, [TSC, '--pretty', 'false'], { cwd: folder })
  await compile().catch(({ stdout }) => expect(stdout).toBe(''))
  const lock = await readFile(join(folder, 'node_modules/.package-lock.json'), 'utf8')
  return {
    packages: JSON.parse(lock).packages as Record<string, InstalledPackage>,
    start: async (env: Record<string, string> = {}) => {
      const options = { cwd: folder, env: { ...process.env, ...env } }
      const { stdout } = await run(process.execPath, [`src/${program}.js`], options)
      return JSON.parse(stdout)
    },
  }
}

interface InstalledPackage {
  dependencies?: Record<string, string>
  hasInstallScript?: boolean
}

/** Finds the packages that a package brings with it. */
function findDependencies(packages: Record<string, InstalledPackage>, name: string): Set<string> {
  const found = new Set<string>()
  const add = (parent: string) => {
    for (const child of Object.keys(packages[`node_modules/${parent}`]?.dependencies ?? {})) {
      if (found.has(child)) continue
      found.add(child)
      add(child)
    }
  }
  add(name)
  return found
}

const EXPECTED = {
  first: '{"amount":5,"key":"key-1","runs":1}',
  repeat: '{"amount":5,"key":"key-1","runs":1}',
  replayed: 'true',
  problem: 'https://example.com/problems/idempotency-key-reused',
}

describe('the package', () => {
  test('holds compiled code, types, SQL and a README, and nothing else', async () => {
    const sources = await readdir(join(PACKAGE, 'src'), { recursive: true })
    const modules = sources.filter((path) => path.endsWith('.ts'))
    const compiled = modules.flatMap((path) =>
      ['.js', '.d.ts'].map((extension) => `dist/${path.replace(/\.ts$/, extension)}`),
    )
    const others = ['LICENSE', 'README.md', 'package.json', 'sql/idempotency-records.sql']
    expect(files.toSorted()).toEqual([...compiled, ...others].toSorted())
  })

  test('serves an application that has only Fastify', async () => {
    const { start, packages } = await installConsumer('memory', { fastify: versions.fastify })
    expect(await start()).toEqual({ memory: EXPECTED, tests: true })
    const dependencies = findDependencies(packages, '@order-once/idempotency')
    expect(dependencies.size).toBeGreaterThan(0)
    expect(dependencies.size).toBeLessThanOrEqual(10)
    for (const name of dependencies) {
      expect(packages[`node_modules/${name}`]?.hasInstallScript, name).toBeUndefined()
    }
    expect(packages['node_modules/ioredis']).toBeUndefined()
  })

  test.runIf(hasRedis)('serves Fastify 5.2 with ioredis 5 and pg', async () => {
    const { url } = await emptyRedisSpace()
    const { start } = await installConsumer('drivers-oldest', {
      fastify: '5.2.0',
      ioredis: '^5.4.0',
      pg: versions.pg,
      '@types/pg': versions['@types/pg'],
    })
    expect(await start({ POSTGRES_URL: await createEmptyDatabase(), REDIS_URL: url })).toEqual({
      memory: EXPECTED,
      pg: EXPECTED,
      ioredis: EXPECTED,
    })
  })

  test.runIf(hasRedis)('serves the newest Fastify with ioredis 6 and postgres.js', async () => {
    const { url } = await emptyRedisSpace()
    const { start } = await installConsumer('drivers-newest', {
      fastify: versions.fastify,
      ioredis: versions.ioredis,
      postgres: versions.postgres,
    })
    expect(await start({ POSTGRES_URL: await createEmptyDatabase(), REDIS_URL: url })).toEqual({
      memory: EXPECTED,
      postgres: EXPECTED,
      ioredis: EXPECTED,
    })
  })
})
