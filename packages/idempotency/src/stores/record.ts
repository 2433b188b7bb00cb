/** Records as Redis and Postgres keep them: JSON that a person can read. */
import Type, { type Static } from 'typebox'
import Schema from 'typebox/schema'
import type { CompletedRequest, ReportCorruptRecord, StoredResponse } from './store.ts'

const CompletedRecord = Type.Object({
  state: Type.Literal('completed'),
  status_code: Type.Integer(),
  headers: Type.Record(Type.String(), Type.Union([Type.String(), Type.Array(Type.String())])),
  /** the body: text, or base64 if `encoding` says so */
  response: Type.String(),
  encoding: Type.Optional(Type.Literal('base64')),
  payload_hash: Type.String(),
  created_at: Type.String(),
})

const InFlightRecord = Type.Object({
  state: Type.Literal('in_flight'),
  payload_hash: Type.String(),
  token: Type.String(),
  created_at: Type.String(),
})

export type StoredRecord = Static<typeof CompletedRecord> | Static<typeof InFlightRecord>

const storedRecord = Schema.Compile(Type.Union([CompletedRecord, InFlightRecord]))

/** Formats the record of a claim. */
export function formatClaim(fingerprint: string, token: string): string {
  const record: Static<typeof InFlightRecord> = {
    state: 'in_flight',
    payload_hash: fingerprint,
    token,
    created_at: new Date().toISOString(),
  }
  return JSON.stringify(record)
}

/** Formats the record of a response. */
export function formatCompleted({ fingerprint, response }: CompletedRequest): string {
  const { statusCode, headers, body } = response
  const record: Static<typeof CompletedRecord> = {
    state: 'completed',
    status_code: statusCode,
    headers,
    ...(typeof body === 'string'
      ? { response: body }
      : { response: body.toString('base64'), encoding: 'base64' }),
    payload_hash: fingerprint,
    created_at: new Date().toISOString(),
  }
  return JSON.stringify(record)
}

/**
 * Parses a record.
 *
 * @returns undefined, after a report, if it is corrupt: not JSON, or not of one of the two forms
 */
export function parseRecord(
  key: string,
  text: string,
  reportCorruptRecord: ReportCorruptRecord = () => {},
): StoredRecord | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (storedRecord.Check(value)) return value
    throw new Error('the record has no known form')
  } catch (error) {
    reportCorruptRecord(key, error instanceof Error ? error : new Error(String(error)))
    return undefined
  }
}

/** Reads the response of a completed record. */
export function readResponse(record: Static<typeof CompletedRecord>): StoredResponse {
  const { status_code: statusCode, headers, response, encoding } = record
  const body = encoding === 'base64' ? Buffer.from(response, 'base64') : response
  return { statusCode, headers, body }
}
