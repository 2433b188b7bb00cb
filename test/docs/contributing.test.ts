import { cp, readFile, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { createTemporaryFolder } from '../support/process.ts'
import { runProgram } from '../support/run-program.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

test('the change that adds a field applies to the sources, and they compile', async () => {
  const page = await readFile(join(ROOT, 'CONTRIBUTING.md'), 'utf8')
  const [, diff = ''] = /```diff\n(.*?)```/s.exec(page) ?? []
  const cwd = await createTemporaryFolder()
  await cp(join(ROOT, 'src'), join(cwd, 'src'), { recursive: true })
  for (const name of ['node_modules', 'packages', 'package.json', 'tsconfig.json']) {
    await symlink(join(ROOT, name), join(cwd, name))
  }
  expect(await runProgram(['git', 'apply', '-'], { cwd, stdin: diff })).toMatchObject({ code: 0 })
  expect(await readFile(join(cwd, 'src/orders/columns.ts'), 'utf8')).toContain('note:')
  const compiler = join(ROOT, 'node_modules/.bin/tsc')
  expect(await runProgram([compiler, '--noEmit', '-p', '.'], { cwd })).toMatchObject({ code: 0 })
})
