import { readFile } from 'node:fs/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
import { send } from '../support/client.ts'
import { mockClock } from '../support/mock-clock.ts'
import { createTestStores, startInstance } from '../support/service.ts'
import { hasRedis } from '../support/stores.ts'
import { until } from '../support/until.ts'

const DOCS = new URL('../../docs/', import.meta.url)

let page: string
let anchors: string[]

beforeAll(async () => {
  page = await readFile(new URL('operations.md', DOCS), 'utf8')
  const headings = page.matchAll(/^#+ (.+)$/gm)
  anchors = Array.from(headings, ([, text = '']) =>
    text
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )
})

describe('docs/operations.md', () => {
  test('has a section for each alert', async () => {
    const { groups } = parse(await readFile(new URL('alerts.yml', DOCS), 'utf8'))
    type Rule = { alert?: string; annotations: { runbook: string } }
    const rules = groups.flatMap((group: { rules: Rule[] }) => group.rules) as Rule[]
    for (const { alert, annotations } of rules.filter((rule) => rule.alert !== undefined)) {
      const [file, anchor] = annotations.runbook.split('#')
      expect(file).toBe('docs/operations.md')
      expect(anchors).toContain(anchor)
      expect(page).toContain(`\`${alert}\``)
    }
  })

  test('links only to its own sections', () => {
    const links = Array.from(page.matchAll(/\]\(#([^)]*)\)/g), ([, anchor]) => anchor)
    expect(links.length).toBeGreaterThan(20)
    for (const link of links) expect(anchors).toContain(link)
  })

  test.runIf(hasRedis)(
    'has a procedure that erases an order, after which its key creates a new one',
    async () => {
      const [, section = ''] = page.split('\n## Erase an order\n')
      const steps = (section.split('\n## ')[0] as string).matchAll(
        /```sql\n([\s\S]*?)```|DEL (\S+)|^\d\. Wait (\d+) s/gm,
      )
      const advanceClock = mockClock()
      const stores = await createTestStores()
      const { redis } = stores.redisSpace as NonNullable<typeof stores.redisSpace>
      const { sql } = stores.database
      const instances = [await startInstance(stores), await startInstance(stores)] as const
      const sendTo = ({ port }: { port: number }) => send(port, { key: 'key-001' })
      const sendToEach = async () => [await sendTo(instances[0]), await sendTo(instances[1])]
      const erased = await sendTo(instances[0])
      await until(async () => (await redis.get('idemp:key-001'))?.includes('completed'))

      const done: string[] = []
      for (const [, statement, record, seconds] of steps) {
        // Until the record is deleted, both have the response, which they now keep in memory.
        if (!done.includes('record')) {
          for (const { text } of await sendToEach()) expect(text).toBe(erased.text)
        }
        if (statement) await sql.unsafe(statement)
        if (record) expect(await redis.del(record)).toBe(1)
        if (seconds) advanceClock(Number(seconds) * 1000)
        done.push(statement ? 'row' : record ? 'record' : `${seconds} s`)
        if (record) {
          for (const { text } of await sendToEach()) expect(text).toBe(erased.text) // from memory
          expect(await sql`select id from orders`).toEqual([])
        }
      }
      expect(done).toEqual(['row', '10 s', 'record', '60 s'])

      const replies = await sendToEach()
      const [order, ...others] = await sql`select id from orders`
      expect(others).toEqual([])
      expect(order?.id).not.toBe(erased.json.order.id)
      for (const { status, json } of replies) {
        expect([status, json.order.id]).toEqual([201, order?.id])
      }
    },
  )
})
