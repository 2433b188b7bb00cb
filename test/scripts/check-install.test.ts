import { spawnSync } from 'node:child_process'
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { createTemporaryFolder } from '../support/process.ts'

const SCRIPT = fileURLToPath(new URL('../../scripts/check-install.js', import.meta.url))
const run = (path: string) => spawnSync(execPath, [path], { encoding: 'utf8' })

test('a complete install passes the check', () => {
  expect(run(SCRIPT)).toMatchObject({ status: 0, stderr: '' })
})

test('an install without optional packages ends the build with one line that says how to repair it', async () => {
  const copy = join(await createTemporaryFolder(), 'check-install.mjs')
  copyFileSync(SCRIPT, copy)
  const { status, stderr } = run(copy)
  expect(status).toBe(1)
  expect(stderr).toMatch(/^the compiler is not installed \(@typescript\/\S+\): run `npm ci`, .*\n$/)
})
