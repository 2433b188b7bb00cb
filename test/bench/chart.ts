import type { CaseResults } from './results.ts'
import { spreadOf } from './statistics.ts'
import { byName } from './tables.ts'
import { decimal } from './text.ts'

const WIDTH = 960
const HEIGHT = 400
const COLORS = ['#0b62c4', '#c2410c']
const INK = '#1f2937'
const FAINT = '#e5e7eb'

/** A rectangle of the drawing, in pixels. */
interface Box {
  left: number
  right: number
  top: number
  bottom: number
}

const RATE_BOX: Box = { left: 80, right: 460, top: 90, bottom: 330 }
const LATENCY_BOX: Box = { left: 560, right: 940, top: 90, bottom: 330 }

/** The medians with one number of processes, in the order of the number of connections. */
interface Series {
  color: string
  name: string
  points: { connections: number; perSecond: number; p50: number; p99: number }[]
}

/** Draws throughput and latency of new orders over the number of connections, as SVG. */
export function drawChart(results: CaseResults): string {
  const series = [1, results.processes].map((processes, index) => ({
    color: COLORS[index] as string,
    name: processes === 1 ? '1 process' : `${processes} processes`,
    points: pointsOf(results, processes),
  }))
  const points = series.flatMap((one) => one.points)
  const widths = [...new Set(points.map(({ connections }) => connections))].sort((a, b) => a - b)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="system-ui, sans-serif" font-size="13" fill="${INK}" role="img">`,
    '<title>New orders: throughput and latency over the number of connections</title>',
    `<rect width="${WIDTH}" height="${HEIGHT}" rx="8" fill="#ffffff"/>`,
    ...ratePanel(series, widths),
    ...latencyPanel(series, widths),
    '</svg>\n',
  ].join('\n')
}

function pointsOf({ runs }: CaseResults, processes: number): Series['points'] {
  const counted = runs.filter(
    (run) => run.kind === 'new orders' && run.processes === processes && run.faults.length === 0,
  )
  return [...byName(counted).values()]
    .map((group) => ({
      connections: group[0]?.connections ?? 1,
      perSecond: spreadOf(group.map(({ perSecond }) => perSecond)).median,
      p50: spreadOf(group.map(({ p50 }) => p50 ?? 0)).median,
      p99: spreadOf(group.map(({ p99 }) => p99 ?? 0)).median,
    }))
    .sort((a, b) => a.connections - b.connections)
}

function ratePanel(series: Series[], widths: number[]): string[] {
  const box = RATE_BOX
  const most = Math.max(...series.flatMap(({ points }) => points.map((point) => point.perSecond)))
  const step = roundStep(most / 5)
  const steps = Math.ceil(most / step)
  const x = columnsIn(box, widths)
  const y = (rate: number) => box.bottom - (rate / (steps * step)) * (box.bottom - box.top)
  const ticks = Array.from({ length: steps + 1 }, (_, index) => index * step)
  return [
    ...frame(box, 'New orders per second', widths, x),
    ...ticks.flatMap((rate) => gridLine(box, y(rate), decimal(rate))),
    ...series.flatMap(({ color, points }) =>
      line(
        points.map((point) => [x(point.connections), y(point.perSecond)]),
        color,
      ),
    ),
    ...legend(
      box,
      series.map(({ color, name }) => ({ color, name })),
    ),
  ]
}

function latencyPanel(series: Series[], widths: number[]): string[] {
  const box = LATENCY_BOX
  const values = series.flatMap(({ points }) => points.flatMap(({ p50, p99 }) => [p50, p99]))
  const ticks = logTicks(Math.min(...values), Math.max(...values))
  const [low, high] = [ticks[0] ?? 1, ticks.at(-1) ?? 10].map(Math.log10) as [number, number]
  const x = columnsIn(box, widths)
  const y = (ms: number) =>
    box.bottom - ((Math.log10(ms) - low) / (high - low)) * (box.bottom - box.top)
  return [
    ...frame(box, 'Latency in ms', widths, x),
    ...ticks.flatMap((ms) => gridLine(box, y(ms), `${ms}`)),
    ...series.flatMap(({ color, points }) => [
      ...line(
        points.map(({ connections, p50 }) => [x(connections), y(p50)]),
        color,
      ),
      ...line(
        points.map(({ connections, p99 }) => [x(connections), y(p99)]),
        color,
        true,
      ),
    ]),
    ...legend(
      box,
      series.flatMap(({ color, name }) => [
        { color, name: `p50, ${name}` },
        { color, name: `p99, ${name}`, dashed: true },
      ]),
    ),
  ]
}

/** The place of each number of connections: the logarithm to the base of 2. */
function columnsIn({ left, right }: Box, widths: number[]) {
  const [low, high] = [widths[0] ?? 1, widths.at(-1) ?? 2].map(Math.log2) as [number, number]
  return (connections: number) =>
    left + 12 + ((Math.log2(connections) - low) / (high - low)) * (right - left - 24)
}

function frame(box: Box, title: string, widths: number[], x: (width: number) => number): string[] {
  const middle = (box.left + box.right) / 2
  return [
    `<text x="${box.left}" y="32" font-size="16" font-weight="600">${title}</text>`,
    ...widths.flatMap((width) =>
      text(x(width), box.bottom + 20, `${width}`, 'text-anchor="middle"'),
    ),
    ...text(middle, box.bottom + 46, 'connections', 'text-anchor="middle"'),
  ]
}

function gridLine({ left, right }: Box, y: number, label: string): string[] {
  return [
    `<line x1="${left}" x2="${right}" y1="${pixel(y)}" y2="${pixel(y)}" stroke="${FAINT}"/>`,
    ...text(left - 8, y + 4, label, 'text-anchor="end"'),
  ]
}

function line(points: [number, number][], color: string, dashed = false): string[] {
  const path = points.map(([x, y]) => `${pixel(x)},${pixel(y)}`).join(' ')
  const dashes = dashed ? ' stroke-dasharray="5 4"' : ''
  return [
    `<polyline points="${path}" fill="none" stroke="${color}" stroke-width="2"${dashes}/>`,
    ...points.map(([x, y]) => `<circle cx="${pixel(x)}" cy="${pixel(y)}" r="3" fill="${color}"/>`),
  ]
}

/** Two entries a row. */
function legend(
  { left, right }: Box,
  entries: { color: string; name: string; dashed?: boolean }[],
): string[] {
  return entries.flatMap(({ color, name, dashed }, index) => {
    const x = left + (Math.floor(index / 2) * (right - left)) / 2
    const y = 52 + (index % 2) * 18
    const dashes = dashed ? ' stroke-dasharray="5 4"' : ''
    return [
      `<line x1="${x}" x2="${x + 24}" y1="${y}" y2="${y}" stroke="${color}" stroke-width="2"${dashes}/>`,
      ...text(x + 32, y + 4, name),
    ]
  })
}

function text(x: number, y: number, words: string, attributes = ''): string[] {
  return [`<text x="${pixel(x)}" y="${pixel(y)}" ${attributes}>${words}</text>`]
}

/** 1, 2 or 5 times a power of ten, not below the given step. */
function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least))
  return ([1, 2, 5, 10].find((factor) => factor * power >= least) ?? 10) * power
}

/** 1, 2 and 5 times powers of ten, from just below the least value to just above the greatest. */
function logTicks(least: number, greatest: number): number[] {
  const ticks: number[] = []
  for (let exponent = -3; exponent <= 6; exponent++) {
    ticks.push(...[1, 2, 5].map((factor) => Number(`${factor}e${exponent}`)))
  }
  const first = ticks.findLastIndex((tick) => tick <= least)
  const last = ticks.findIndex((tick) => tick >= greatest)
  return ticks.slice(Math.max(0, first), last + 1)
}

const pixel = (value: number) => Number(value.toFixed(1))
