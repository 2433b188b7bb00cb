import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { fillPatroni, haproxy, hasPatroni, patroni, placeMembers } from '../support/patroni.ts'
import { createTemporaryFolder } from '../support/process.ts'

// `npm run test:failover` runs the programs with these files.

const PROXY_FILE = fileURLToPath(new URL('../../docs/deploy/patroni/haproxy.cfg', import.meta.url))

function run(command: string | undefined, ...args: string[]): Promise<string> {
  return new Promise((resolve) => {
    execFile(String(command), args, (_, stdout, stderr) => resolve(stdout + stderr))
  })
}

describe.runIf(hasPatroni)('the files for Patroni', () => {
  test('are accepted by HAProxy, without a warning', async () => {
    expect(await run(haproxy, '-c', '-f', PROXY_FILE)).toBe('Configuration file is valid\n')
  })

  test('have what Patroni needs, on free ports of this machine', async () => {
    const folder = await createTemporaryFolder()
    const places = await placeMembers(folder)
    const [first] = places
    const text = first && (await fillPatroni(places, first))
    const validate = async (configuration = '') => {
      const file = join(folder, 'patroni.yml')
      await writeFile(file, configuration)
      const lines = (await run(patroni, '--validate-config', file)).split('\n').filter(Boolean)
      // It refuses every address of this machine, and an etcd that is not running.
      return lines.filter((line) => !/^(\w+\.connect_address|etcd3\.hosts) /.test(line))
    }
    expect(await validate(text)).toEqual([])
    expect(await validate(text?.replace('superuser:', 'administrator:'))).toEqual([
      'postgresql.authentication.superuser  is not defined.',
    ])
  })
})
