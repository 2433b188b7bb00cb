import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Deployment } from 'kubernetes-types/apps/v1.d.ts'
import type { Job } from 'kubernetes-types/batch/v1.d.ts'
import type { PodDisruptionBudget } from 'kubernetes-types/policy/v1.d.ts'
import { describe, expect, onTestFinished, test } from 'vitest'
import { parseAllDocuments } from 'yaml'
import { SHUTDOWN_TIMEOUT_MS } from '../../src/limits.ts'
import { describeRules } from '../../src/settings.ts'
import { hasSystemdAnalyze } from '../support/systemd-analyze.ts'

const DEPLOY = new URL('../../docs/deploy/', import.meta.url)
const MODULES = fileURLToPath(new URL('../../node_modules/', import.meta.url))

type Manifest = { apiVersion: string; kind: string; metadata: { name: string } }

/** All manifests for Kubernetes, in the order of their files. */
async function readManifests(): Promise<Manifest[]> {
  const files = ['kubernetes-migrate.yaml', 'kubernetes.yaml']
  const texts = await Promise.all(files.map((file) => readFile(new URL(file, DEPLOY), 'utf8')))
  return texts.flatMap((text) =>
    parseAllDocuments(text).map((document) => {
      expect(document.errors).toEqual([])
      return document.toJS()
    }),
  )
}

async function findManifest<T>(kind: string): Promise<T> {
  return (await readManifests()).find((manifest) => manifest.kind === kind) as T
}

async function createFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'manifests-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  return folder
}

function run(command: string, ...args: string[]): Promise<{ code: unknown; output: string }> {
  return new Promise((resolve) => {
    execFile(command, args, (error, stdout, stderr) => {
      resolve({ code: error?.code ?? 0, output: stdout + stderr })
    })
  })
}

/** Runs the compiler on manifests, each as a literal of its type: it also reports members that do not exist. */
async function checkTypes(manifests: Manifest[]) {
  const lines = manifests.map((manifest, i) => {
    const { apiVersion, kind } = manifest
    const module = apiVersion.includes('/') ? apiVersion : `core/${apiVersion}`
    return `import type { ${kind} as Kind${i} } from 'kubernetes-types/${module}'
export const manifest${i}: Kind${i} = ${JSON.stringify(manifest)}`
  })
  const folder = await createFolder()
  await writeFile(join(folder, 'manifests.ts'), lines.join('\n'))
  const compilerOptions = {
    ...{ strict: true, noEmit: true, skipLibCheck: true, module: 'preserve', types: [] },
    paths: { 'kubernetes-types/*': [`${MODULES}kubernetes-types/*`] },
  }
  await writeFile(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ compilerOptions, files: ['manifests.ts'] }),
  )
  return run(process.execPath, `${MODULES}typescript/bin/tsc`, '-p', folder)
}

describe('the manifests for Kubernetes', () => {
  test('have the types of the API, and no member that it does not have', async () => {
    const manifests = await readManifests()
    expect(manifests.map(({ kind }) => kind)).toEqual([
      ...['Job', 'Deployment', 'Service', 'PodDisruptionBudget'],
    ])
    expect(await checkTypes(manifests)).toEqual({ code: 0, output: '' })
    const [deployment] = manifests as [Manifest]
    const wrong = { ...deployment, spec: { templates: {} } }
    expect((await checkTypes([wrong])).output).toContain('templates')
  })

  test('run the service without rights, without the variables of other services, and on a read-only file system', async () => {
    const deployment = await findManifest<Deployment>('Deployment')
    const job = await findManifest<Job>('Job')
    for (const template of [deployment.spec?.template, job.spec?.template]) {
      expect(template?.spec).toMatchObject({
        enableServiceLinks: false,
        automountServiceAccountToken: false,
        securityContext: { runAsNonRoot: true },
        containers: [
          {
            securityContext: {
              allowPrivilegeEscalation: false,
              readOnlyRootFilesystem: true,
              capabilities: { drop: ['ALL'] },
            },
          },
        ],
      })
    }
  })

  test('probe the paths of the service, and let it finish its requests', async () => {
    const { spec } = await findManifest<Deployment>('Deployment')
    const pod = spec?.template.spec
    const [container] = pod?.containers ?? []
    expect(container?.startupProbe?.httpGet?.path).toBe('/health/live')
    expect(container?.livenessProbe?.httpGet?.path).toBe('/health/live')
    expect(container?.readinessProbe?.httpGet?.path).toBe('/health/ready')
    const [, pause] = container?.lifecycle?.preStop?.exec?.command ?? []
    const graceMs = (pod?.terminationGracePeriodSeconds ?? 0) * 1000
    expect(graceMs).toBeGreaterThan(Number(pause) * 1000 + SHUTDOWN_TIMEOUT_MS)
    // A disruption leaves an instance, and is possible at all.
    const budget = await findManifest<PodDisruptionBudget>('PodDisruptionBudget')
    expect(spec?.replicas).toBeGreaterThan(Number(budget.spec?.maxUnavailable))
    expect(budget.spec?.selector).toEqual(spec?.selector)
    expect(spec?.template.metadata?.labels).toMatchObject(spec?.selector.matchLabels ?? {})
  })

  test('set only variables that are settings', async () => {
    const { spec } = await findManifest<Deployment>('Deployment')
    const names = spec?.template.spec?.containers[0]?.env?.map(({ name }) => name) ?? []
    const settings = describeRules().map((rule) => rule.split(' ')[0])
    expect(settings).toEqual(expect.arrayContaining(names))
  })
})

describe.runIf(hasSystemdAnalyze)('the systemd unit', () => {
  test('is accepted by systemd-analyze verify, without a warning', async () => {
    const unit = await readFile(new URL('order-once.service', DEPLOY), 'utf8')
    const folder = await createFolder()
    const verify = async (text: string) => {
      // It checks whether the program exists.
      const file = join(folder, 'order-once.service')
      await writeFile(file, text.replace('/usr/bin/node', process.execPath))
      return run('systemd-analyze', 'verify', '--man=no', file)
    }
    expect(await verify(unit)).toEqual({ code: 0, output: '' })
    expect((await verify(unit.replace('Restart=always', 'Restart=ever'))).output).toContain('ever')
  })
})

test('the systemd unit gives the service enough time to finish its requests', async () => {
  const unit = await readFile(new URL('order-once.service', DEPLOY), 'utf8')
  const [, seconds] = /^TimeoutStopSec=(\d+)$/m.exec(unit) ?? []
  expect(Number(seconds) * 1000).toBeGreaterThan(SHUTDOWN_TIMEOUT_MS)
})
