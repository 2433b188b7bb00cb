/** The rows of the table: which stores each one starts, and what happens to them under load. */
import type postgres from 'postgres'
import { patroniRows } from './patroni-rows.ts'
import { postgresRows } from './postgres-rows.ts'
import { redisRows } from './redis-rows.ts'

export interface Row {
  name: string
  /** whether acknowledged orders may be missing until the reconciliation: the standby is asynchronous */
  mayLoseOrders?: boolean
  /** what this machine lacks, so that the row cannot run */
  missing?: string | undefined
  /** Starts the stores. @param onEnd takes what ends them, also if the start fails */
  start(onEnd: OnEnd): Promise<Stores>
}

/** Registers a function that is called at the end of the row; the last one is called first. */
export type OnEnd = (close: () => Promise<unknown>) => void

/** The stores of a row while it runs. */
export interface Stores {
  databaseUrl: string
  redisUrl: string
  /**
   * Makes another server the primary or the master.
   *
   * @returns when that server accepted writes, by `performance.now()`
   */
  failOver(): Promise<number>
  /** Runs once orders are created again. */
  afterwards?(): Promise<void>
  /** Runs statements on the Postgres that is the primary after the failover. */
  administer<T>(statements: (sql: postgres.Sql) => Promise<T>): Promise<T>
}

export const ROWS: readonly Row[] = [...postgresRows, ...redisRows, ...patroniRows]
