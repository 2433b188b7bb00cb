import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'

const ROOT = new URL('../../', import.meta.url)
const PAGES = [
  ...['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'packages/idempotency/README.md'],
  ...(await readdir(new URL('docs/', ROOT)))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
]

/** Lists the anchors of a page, as GitHub makes them from its headings. */
async function listAnchors(page: URL): Promise<string[]> {
  const text = await readFile(page, 'utf8')
  const withoutCode = text.replaceAll(/^```.*?^```$/gms, '') // where # begins a comment
  const headings = withoutCode.matchAll(/^#+ (.*)$/gm)
  return Array.from(headings, ([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

describe('the links of the documents', () => {
  test.each(PAGES)('lead to files and headings that exist: %s', async (page) => {
    const source = new URL(page, ROOT)
    const links = (await readFile(source, 'utf8')).matchAll(/\]\(([^):\s]+)\)/g)
    for (const [, link = ''] of links) {
      const target = new URL(link, source)
      const anchor = target.hash.slice(1)
      target.hash = ''
      expect(existsSync(target), link).toBe(true)
      if (anchor) expect(await listAnchors(target), link).toContain(anchor)
    }
  })
})
