import type { Case } from './cases.ts'

/** The figures of one case in one round; `null` is what could not be measured. */
export interface Run extends Case {
  round: number
  requests: number
  perSecond: number
  /** ms */
  p50: number | null
  p99: number | null
  mean: number
  /** µs of CPU per request */
  cpu: Record<'service' | 'postgres' | 'redis' | 'load', number | null>
  /** bytes of each process of the service, at the end */
  memory: number[]
  /** what makes the figures void; nothing, if they count */
  faults: string[]
}

/** On what it was measured. */
export interface Machine {
  cpu: string
  cores: number
  /** bytes */
  memory: number
  system: string
  node: string
  postgres: string
  redis: string
}

/** When and where something was measured. */
export interface Circumstances {
  /** ISO 8601 */
  date: string
  machine: Machine
  /** of the service; where there are several numbers, the largest */
  processes: number
  /** where no other number is given */
  connections: number
}

/** All cases, in rounds. */
export interface CaseResults extends Circumstances {
  rounds: number
  /** of a run, about */
  seconds: number
  runs: Run[]
}

/** What one service was like after so many orders. */
export interface EnduranceSample {
  orders: number
  /** of the orders since the sample before */
  perSecond: number
  p50: number
  p99: number
  /** bytes of each process of the service */
  memory: number[]
  /** bytes */
  redisMemory: number
}

/** One service that creates orders for a long time. */
export interface EnduranceResults extends Circumstances {
  samples: EnduranceSample[]
  faults: string[]
}

/** What an order costs in a table of a given size. */
export interface TableCost {
  /** in the table before */
  rows: number
  orderedKeys: boolean
  requests: number
  perSecond: number
  /** per order, in µs of CPU */
  cpu: Record<'service' | 'postgres' | 'redis', number | null>
  /** of Postgres's log, per order */
  walBytes: number
  /** of the index on the keys, before */
  indexBytes: number
  faults: string[]
}

/** What the size of the table does. */
export interface LargeTableResults extends Circumstances {
  costs: TableCost[]
}

/** The last results of each part. */
export interface Results {
  cases?: CaseResults
  endurance?: EnduranceResults
  largeTable?: LargeTableResults
}

/** What makes any of the figures void. */
export function faultsOf({ cases, endurance, largeTable }: Results): string[] {
  return [
    ...(cases?.runs ?? []),
    ...(endurance ? [endurance] : []),
    ...(largeTable?.costs ?? []),
  ].flatMap(({ faults }) => faults)
}
