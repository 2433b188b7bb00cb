import { pino } from 'pino'
import { expect, onTestFinished, test, vi } from 'vitest'
import { createRepeatCounter } from '../src/log-repeats.ts'

function createLog() {
  vi.useFakeTimers()
  onTestFinished(() => void vi.useRealTimers())
  const lines: { level: number; msg: string; err?: { message: string }; repeats?: number }[] = []
  const options = { base: null, hooks: { logMethod: createRepeatCounter() } }
  const log = pino(options, { write: (line) => void lines.push(JSON.parse(line)) })
  return { log, lines }
}

const createError = (message: string) => new TypeError(message)

test('an error is logged once, and its repeats are counted at the end of the interval', () => {
  const { log, lines } = createLog()
  for (let i = 0; i < 1_000; i++) {
    log.child({ reqId: i }).error({ err: createError(`no ${i}`) }, 'the request failed')
  }
  expect(lines).toMatchObject([{ reqId: 0, err: { message: 'no 0' }, msg: 'the request failed' }])
  vi.advanceTimersByTime(60_000)
  expect(lines.slice(1)).toMatchObject([
    { level: 50, repeats: 999, msg: 'the request failed: 999 more identical errors' },
  ])
  log.error({ err: createError('again') }, 'the request failed')
  expect(lines.slice(2)).toMatchObject([{ err: { message: 'again' } }])
})

test('a single error has no count', () => {
  const { log, lines } = createLog()
  log.error({ err: createError('once') }, 'the request failed')
  vi.advanceTimersByTime(60_000)
  expect(lines).toHaveLength(1)
})

test('errors of another place, class, code or message are other errors', () => {
  const { log, lines } = createLog()
  log.error({ err: createError('a') }, 'the request failed')
  log.error({ err: createError('a') }, 'the clean-up failed')
  log.error({ err: new RangeError('a') }, 'the request failed')
  log.error({ err: new TypeError('a') }, 'the request failed')
  log.error({ err: Object.assign(createError('a'), { code: '23514' }) }, 'the request failed')
  expect(lines).toHaveLength(5)
})

test('lines of other levels, and those without an error, are all logged', () => {
  const { log, lines } = createLog()
  for (let i = 0; i < 3; i++) {
    log.error('Postgres is unavailable')
    log.error({ worker: 1 }, 'worker 1 exited')
    log.warn({ err: createError('a') }, 'the clean-up failed')
    log.fatal({ err: createError('a') }, 'closing after an unexpected error')
  }
  expect(lines).toHaveLength(12)
})
