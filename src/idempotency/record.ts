import Type, { type Static } from 'typebox'
import Schema from 'typebox/schema'
import type { Answer, AnsweredRequest, ReportCorruptRecord } from './store.ts'

/** A finished answer as a store keeps it: JSON that a person can read. */
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

/** A claim as a store keeps it. */
const InFlightRecord = Type.Object({
  state: Type.Literal('in_flight'),
  payload_hash: Type.String(),
  token: Type.String(),
  created_at: Type.String(),
})

export type StoredRecord = Static<typeof CompletedRecord> | Static<typeof InFlightRecord>

const storedRecord = Schema.Compile(Type.Union([CompletedRecord, InFlightRecord]))

/** The record of a claim. */
export function writeInFlight(fingerprint: string, token: string): string {
  const record: Static<typeof InFlightRecord> = {
    state: 'in_flight',
    payload_hash: fingerprint,
    token,
    created_at: new Date().toISOString(),
  }
  return JSON.stringify(record)
}

/** The record of an answer. */
export function writeCompleted({ fingerprint, answer }: AnsweredRequest): string {
  const { statusCode, headers, body } = answer
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
 * Reads a record.
 *
 * @returns undefined, after a report, if it is corrupt: not JSON, or not of one of the two forms
 */
export function readRecord(
  key: string,
  text: string,
  report: ReportCorruptRecord = () => {},
): StoredRecord | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (storedRecord.Check(value)) return value
    throw new Error('the record is of no known form')
  } catch (error) {
    report(key, error as Error)
    return undefined
  }
}

/** The answer in a completed record. */
export function answerIn(record: Static<typeof CompletedRecord>): Answer {
  const { status_code: statusCode, headers, response, encoding } = record
  const body = encoding === 'base64' ? Buffer.from(response, 'base64') : response
  return { statusCode, headers, body }
}
