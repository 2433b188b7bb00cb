import { fastify } from 'fastify'
import { createMetrics } from './src/metrics/metrics.ts'
import { measure } from './src/http/measure.ts'
const m = createMetrics()
async function build(kind: number) {
  const app = fastify({ logger: { level: 'silent' } })
  app.addHook('onSend', (_q: any, _r: any, _p: any, d: any) => d())
  if (kind === 1) app.addHook('onSend', (_q: any, _r: any, _p: any, d: any) => d())
  if (kind === 2) await app.register(measure, { metrics: m })
  app.post('/orders', async (_q: any, r: any) => r.code(201).send('{}'))
  await app.ready()
  return app
}
const apps = [await build(0), await build(1), await build(2), await build(0)]
const best = [1e9, 1e9, 1e9, 1e9]
for (let k = 0; k < 80; k++) for (const i of [0, 1, 2, 3]) {
  const c = process.cpuUsage()
  for (let n = 0; n < 1500; n++) await apps[i]!.inject({ method: 'POST', url: '/orders' })
  const d = process.cpuUsage(c)
  best[i] = Math.min(best[i]!, (d.user + d.system) / 1500)
}
console.log('CPU a request: none, no-op hook, measure, none again', best)
process.exit()
