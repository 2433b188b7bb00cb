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
  cpu: Record<Part, number | null>
  /** bytes of each process of the service, at the end */
  memory: number[]
  /** what makes the figures void; nothing, if they count */
  faults: string[]
}

export type Part = 'service' | 'postgres' | 'redis' | 'load'

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
}

/** All cases, in rounds. */
export interface CaseResults extends Circumstances {
  rounds: number
  seconds: number
  processes: number
  connections: number
  runs: Run[]
}
