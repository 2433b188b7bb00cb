import { readFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { send } from '../support/client.ts'
import { startProcess } from '../support/process.ts'
import { hasPromtool, promtool } from '../support/promtool.ts'
import { scrape } from '../support/scrape.ts'
import { emptyDatabase } from '../support/stores.ts'

const RULES = 'docs/alerts.yml'
const TESTS = 'docs/alerts.test.yml'

interface Rule {
  alert: string
  expr: string
  labels: { severity: string }
  annotations: { summary: string; description: string; runbook: string }
}

const source = await readFile(RULES, 'utf8')
const rules: Rule[] = parse(source).groups.flatMap(({ rules }: { rules: Rule[] }) => rules)

describe.runIf(hasPromtool)('the alert rules', () => {
  test('pass `promtool check rules`', () => {
    const { status, output } = promtool(['check', 'rules', RULES])
    expect(output).toContain(`SUCCESS: ${rules.length} rules found`)
    expect(status).toBe(0)
  })

  test('pass their tests', () => {
    expect(promtool(['test', 'rules', TESTS])).toMatchObject({
      status: 0,
      output: expect.stringContaining('SUCCESS'),
    })
  })
})

test('each alert has a test, a severity, a description and a runbook', async () => {
  const tests = await readFile(TESTS, 'utf8')
  for (const { alert, labels, annotations } of rules) {
    expect(tests).toContain(`alertname="${alert}"`)
    expect(labels.severity).toMatch(/^(critical|warning)$/)
    expect(annotations.summary.length).toBeLessThan(100)
    expect(annotations.description.length).toBeGreaterThan(100)
    expect(annotations.runbook).toMatch(/^docs\/operations\.md#[a-z-]+$/)
  }
})

test('the alerts use metrics that the service has', async () => {
  const { url } = await emptyDatabase()
  const service = await startProcess({ DATABASE_URL: url })
  await send(service.port)
  const { text } = await scrape(service.port)
  const exprs = rules.map(({ expr }) => expr).join('\n')
  const names = exprs.match(/\b\w+(?=\{)/g) ?? []
  expect(names.length).toBeGreaterThanOrEqual(rules.length)
  // `up` is Prometheus's own.
  for (const name of new Set(names)) if (name !== 'up') expect(text).toContain(`\n${name}`)
})
