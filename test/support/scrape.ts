/** Reads the metrics of a service. */
import { expect } from 'vitest'
import { get } from './client.ts'

/** The metrics of a service at one moment. */
export interface Scrape {
  text: string
  /** The value of a series; 0 if there is none. */
  value(name: string, labels?: Record<string, string>): number
}

/** Reads `/metrics`. */
export async function scrape(port: number): Promise<Scrape> {
  const reply = await get(port, '/metrics')
  expect(reply.status).toBe(200)
  expect(reply.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8')
  expect(reply.headers['cache-control']).toBe('no-store')
  const series = new Map(reply.text.split('\n').map(parseLine))
  return {
    text: reply.text,
    value: (name, labels = {}) =>
      Number(series.get(formatSeries(name, Object.entries(labels))) ?? 0),
  }
}

/** `name{b="2",a="1"} 3` → the name with its labels in order, and the value. */
function parseLine(line: string): [string, string] {
  const [series = '', value = ''] = line.split(/ (?=\S+$)/)
  const [name = '', labels = ''] = series.split(/[{}]/)
  const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key = '', text = '']) => [
    key,
    text,
  ])
  return [formatSeries(name, pairs as [string, string][]), value]
}

const formatSeries = (name: string, labels: [string, string][]) =>
  `${name} ${JSON.stringify(labels.sort())}`
