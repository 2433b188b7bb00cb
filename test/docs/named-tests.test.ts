import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'

const ROOT = new URL('../../', import.meta.url)
const FOLDERS = ['test/', 'packages/idempotency/test/', '']

/** Finds the tests in the last column of a page's tables of tests: `file`, or `file`: *title*. */
async function findNamedTests(page: string) {
  const tables = (await readFile(new URL(page, ROOT), 'utf8')).split('\n\n')
  const lines = tables
    .filter((table) => / tests?( .*)? \|$/m.test(table))
    .join('\n')
    .split('\n')
  const cells = lines.filter((line) => line.startsWith('| ')).map((line) => line.split('|').at(-2))
  return cells.flatMap((cell) =>
    Array.from((cell ?? '').matchAll(/`([\w/-]*\w)`(?:: \*([^*]+)\*)?/g), ([, name, title]) => ({
      name,
      title,
    })),
  )
}

describe('the tests that a document names', () => {
  test.each([
    'docs/security.md',
    'docs/idempotency-key-draft.md',
    'docs/reliability.md',
    'packages/idempotency/README.md',
  ])('exist: %s', async (page) => {
    const named = await findNamedTests(page)
    expect(named.length).toBeGreaterThan(10)
    for (const { name, title } of named) {
      const files = FOLDERS.map((folder) => new URL(`${folder}${name}.test.ts`, ROOT))
      const file = files.find((url) => existsSync(url))
      expect(file, name).toBeDefined()
      if (title) expect(await readFile(file as URL, 'utf8')).toContain(title)
    }
  })
})
