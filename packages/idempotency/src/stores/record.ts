/** Records as Redis and Postgres keep them: JSON that a person can read. */
import { validateHeaderValue } from 'node:http'
import Type, { type Static } from 'typebox'
import Schema from 'typebox/schema'
import { checkReplayedHeaders, DEFAULT_REPLAYED_HEADERS } from '../replayed-headers.ts'
import {
  type CompletedRequest,
  ForeignRecordError,
  type ReportCorruptRecord,
  type ReportForeignRecord,
  type StoredResponse,
} from './store.ts'

const CompletedRecord = Type.Object({
  state: Type.Literal('completed'),
  database: Type.Optional(Type.String()),
  status_code: Type.Integer({ minimum: 200, maximum: 599 }),
  headers: Type.Record(Type.String(), Type.Union([Type.String(), Type.Array(Type.String())])),
  /** the body: text, or base64 if `encoding` says so */
  response: Type.String(),
  encoding: Type.Optional(Type.Literal('base64')),
  payload_hash: Type.String(),
  created_at: Type.String(),
})

const InFlightRecord = Type.Object({
  state: Type.Literal('in_flight'),
  database: Type.Optional(Type.String()),
  payload_hash: Type.String(),
  token: Type.String(),
  created_at: Type.String(),
})

export type StoredRecord = Static<typeof CompletedRecord> | Static<typeof InFlightRecord>

const storedRecord = Schema.Compile(Type.Union([CompletedRecord, InFlightRecord]))

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
  const origin = database === undefined ? {} : { database }

  function checkDatabase(key: string, found: unknown): void {
    if (database === undefined || found === database) return
    reportForeignRecord(key)
    throw new ForeignRecordError('the record belongs to another database')
  }

  return {
    replayedHeaders,

    formatClaim(fingerprint, token) {
      const record: Static<typeof InFlightRecord> = {
        state: 'in_flight',
        ...origin,
        payload_hash: fingerprint,
        token,
        created_at: new Date().toISOString(),
      }
      return JSON.stringify(record)
    },

    formatCompleted({ fingerprint, response: { statusCode, headers, body } }) {
      const record: Static<typeof CompletedRecord> = {
        state: 'completed',
        ...origin,
        status_code: statusCode,
        headers,
        ...(typeof body === 'string'
          ? { response: body }
          : { response: body.toString('base64'), encoding: 'base64' }),
        payload_hash: fingerprint,
        created_at: new Date().toISOString(),
      }
      return JSON.stringify(record)
    },

    parse(key, text) {
      try {
        const value: unknown = JSON.parse(text)
        // First: the records of another service may have another form.
        if (isObject(value)) checkDatabase(key, value.database)
        if (!storedRecord.Check(value)) throw new Error('the record has no known form')
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

/** Reads the response of a completed record. */
export function readResponse(record: Static<typeof CompletedRecord>): StoredResponse {
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

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
