import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { PROBLEMS } from '../../src/http/problems.ts'

test('the page about commerce protocols translates codes that the service sends', async () => {
  const page = await readFile(new URL('../../docs/commerce-protocols.md', import.meta.url), 'utf8')
  const table = page.split('| `code` of the service |')[1]?.split('\n\n')[0] ?? ''
  const codes = table
    .split('\n')
    .flatMap((row) =>
      [...(row.split('|')[1] ?? '').matchAll(/`([a-z-]+)`/g)].map(([, code]) => code),
    )
  expect(codes.length).toBeGreaterThan(5)
  expect(codes.filter((code) => !Object.hasOwn(PROBLEMS, code as string))).toEqual([])
})
