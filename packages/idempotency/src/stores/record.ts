/** Records as Redis and Postgres keep them: JSON that a person can read. */
import { validateHeaderValue } from 'node:http'
import { checkReplayedHeaders, DEFAULT_REPLAYED_HEADERS } from '../replayed-headers.ts'
import {
  type CompletedRequest,
  ForeignRecordError,
  type ReportCorruptRecord,
  type ReportForeignRecord,
  type StoredResponse,
} from './store.ts'

interface CommonMembers {
  /** the id of the database that the handler writes to */
  database?: string | undefined
  /** the fingerprint of the request */
  payload_hash: string
  created_at: string
}

interface InFlightRecord extends CommonMembers {
  state: 'in_flight'
  token: string
}

interface CompletedRecord extends CommonMembers {
  state: 'completed'
  status_code: number
  headers: StoredResponse['headers']
  /** the body: text, or base64 if `encoding` says so */
  response: string
  encoding?: 'base64' | undefined
}

export type StoredRecord = InFlightRecord | CompletedRecord

/** The options of a store that keeps records where other services can write. */
export interface RecordOptions {
  /**
   * the id of the database that the handler writes to; default: none. Each record names it, and a record
   * that names another, or none, is not used: its service has other rows under the same keys.
   */
  database?: string
  /** the headers that are stored and replayed; default: `DEFAULT_REPLAYED_HEADERS` */
  replayedHeaders?: string[]
  /** called with each record that cannot be read */
  reportCorruptRecord?: ReportCorruptRecord
  /** called with each record of another database */
  reportForeignRecord?: ReportForeignRecord
}

/** Formats and parses the records of one store. */
export interface RecordFormat {
  /** in lower case */
  readonly replayedHeaders: string[]
  formatClaim(fingerprint: string, token: string): string
  formatCompleted(request: CompletedRequest): string
  /**
   * Parses a record.
   *
   * @returns undefined, after a report, if it is corrupt: not JSON, not of one of the two forms, or a
   * response that must not be replayed
   * @throws {ForeignRecordError} after a report, if it belongs to another database
   */
  parse(key: string, text: string): StoredRecord | undefined
  /** @throws {ForeignRecordError} after a report, if the record's database is another */
  checkDatabase(key: string, database: unknown): void
}

/** @throws {Error} that names the first header that must never be replayed */
export function createRecordFormat({
  database,
  replayedHeaders: names = DEFAULT_REPLAYED_HEADERS,
  reportCorruptRecord = () => {},
  reportForeignRecord = () => {},
}: RecordOptions): RecordFormat {
  const replayedHeaders = checkReplayedHeaders(names)

  function checkDatabase(key: string, found: unknown): void {
    if (database === undefined || found === database) return
    reportForeignRecord(key)
    throw new ForeignRecordError('the record belongs to another database')
  }

  return {
    replayedHeaders,

    formatClaim(fingerprint, token) {
      const record: InFlightRecord = {
        state: 'in_flight',
        database,
        payload_hash: fingerprint,
        token,
        created_at: formatNow(),
      }
      return JSON.stringify(record)
    },

    formatCompleted({ fingerprint, response: { statusCode, headers, body } }) {
      const record: CompletedRecord = {
        state: 'completed',
        database,
        status_code: statusCode,
        headers,
        response: typeof body === 'string' ? body : body.toString('base64'),
        encoding: typeof body === 'string' ? undefined : 'base64',
        payload_hash: fingerprint,
        created_at: formatNow(),
      }
      return JSON.stringify(record)
    },

    parse(key, text) {
      try {
        const value: unknown = JSON.parse(text)
        // First: the records of another service may have another form.
        if (isObject(value)) checkDatabase(key, value.database)
        if (!isStoredRecord(value)) throw new Error('the record has no known form')
        if (value.state === 'completed') checkHeaders(value.headers, replayedHeaders)
        return value
      } catch (error) {
        if (error instanceof ForeignRecordError) throw error
        reportCorruptRecord(key, error instanceof Error ? error : new Error(String(error)))
        return undefined
      }
    },

    checkDatabase,
  }
}

/** The last formatted time. Many records have the same millisecond: see docs/performance.md. */
let lastFormatted = { ms: Number.NaN, text: '' }

/** @returns the time, in ISO 8601 and UTC */
function formatNow(): string {
  const ms = Date.now()
  if (ms !== lastFormatted.ms) lastFormatted = { ms, text: new Date(ms).toISOString() }
  return lastFormatted.text
}

/** Reads the response of a completed record. */
export function readResponse(record: CompletedRecord): StoredResponse {
  const { status_code: statusCode, headers, response, encoding } = record
  const body = encoding === 'base64' ? Buffer.from(response, 'base64') : response
  return { statusCode, headers, body }
}

/** @throws if a header is not one of those that are replayed, or its value has control characters */
function checkHeaders(headers: StoredResponse['headers'], replayedHeaders: string[]): void {
  for (const [name, values] of Object.entries(headers)) {
    if (!replayedHeaders.includes(name)) throw new Error('the record has a header it must not have')
    for (const value of [values].flat()) validateHeaderValue(name, value)
  }
}

function isStoredRecord(value: unknown): value is StoredRecord {
  if (!isObject(value) || !isText(value.payload_hash) || !isText(value.created_at)) return false
  if (value.database !== undefined && !isText(value.database)) return false
  return value.state === 'in_flight' ? isText(value.token) : isCompletedRecord(value)
}

function isCompletedRecord(record: Record<string, unknown>): boolean {
  const { state, status_code: status, headers, response, encoding } = record
  return (
    state === 'completed' &&
    Number.isInteger(status) &&
    Number(status) >= 200 &&
    Number(status) <= 599 &&
    isObject(headers) &&
    // A value is one text, or a list of texts.
    Object.values(headers).every((value) => [value].flat().every(isText)) &&
    isText(response) &&
    (encoding === undefined || encoding === 'base64')
  )
}

const isText = (value: unknown) => typeof value === 'string'

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
