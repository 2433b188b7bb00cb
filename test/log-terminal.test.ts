import { expect, test } from 'vitest'
import { createTerminalFormatter } from '../src/log-terminal.ts'

const format = createTerminalFormatter({ colorize: false })

const formatLine = (members: object) =>
  format(JSON.stringify({ level: 30, time: Date.UTC(2026, 2, 22), ...members }))

const REQUEST = { reqId: 'request-1', method: 'POST', route: '/orders', duration_ms: 4.236 }

test.each([
  [{ status: 201, idempotency: 'new' }, 'POST /orders 201 4.2 ms new'],
  [{ status: 401 }, 'POST /orders 401 4.2 ms'],
  [{ status: 404, method: 'GET', route: undefined }, 'GET (unknown path) 404 4.2 ms'],
  [{ aborted: true, idempotency: 'new' }, 'POST /orders disconnected 4.2 ms new'],
  [
    { status: 201, trace_id: '0af7', pid: 12, idempotency: 'waited' },
    'POST /orders 201 4.2 ms waited',
  ],
])('a request with %j is one line', (members, text) => {
  const line = formatLine({ ...REQUEST, ...members, msg: 'request' })
  expect(line).toMatch(/^\[\d\d:\d\d:\d\d\] INFO.*: /)
  expect(line.slice(line.indexOf(': ') + 2)).toBe(`${text}\n`)
})

test('another line keeps its members, so that an error can be found', () => {
  const err = {
    type: 'TypeError',
    message: 'no item',
    stack: 'TypeError: no item\n    at f (a.js:1)',
  }
  const text = formatLine({ level: 50, reqId: 'request-1', err, msg: 'the request failed' })
  expect(text).toContain('ERROR: the request failed\n')
  expect(text).toContain('reqId: "request-1"')
  expect(text).toContain('at f (a.js:1)')
})
