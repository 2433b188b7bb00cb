import { readFile, writeFile } from 'node:fs/promises'
import { drawChart } from './chart.ts'
import { renderMarkdown } from './markdown.ts'
import type { Results } from './results.ts'

const DOCS = new URL('../../docs/', import.meta.url)
const JSON_FILE = new URL('benchmarks.json', DOCS)

/** The results that the documents were last made of. */
export async function readResults(): Promise<Results> {
  try {
    return JSON.parse(await readFile(JSON_FILE, 'utf8'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}
    throw error
  }
}

/** Keeps the results, together with the last ones of the parts that were not run. */
export async function keepResults(results: Results): Promise<void> {
  const all = { ...(await readResults()), ...results }
  await writeFile(JSON_FILE, formatResults(all))
  await writeDocuments(all)
}

/** Writes `docs/benchmarks.md` and its chart. */
export async function writeDocuments(results: Results): Promise<void> {
  await writeFile(new URL('benchmarks.md', DOCS), renderMarkdown(results))
  if (results.cases) await writeFile(new URL('benchmarks.svg', DOCS), drawChart(results.cases))
}

/** The results as a file. */
export function formatResults(results: Results): string {
  return `${JSON.stringify(results, undefined, 1)}\n`
}
