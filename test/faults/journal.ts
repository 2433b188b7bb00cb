/** What a client sends, and was told about it. */
export interface SentOrder {
  key: string
  input: { user_id: string; item: string; amount: number }
  /** the bytes of `input` */
  body: string
  attempts: number
  /** the bodies of all its 201 answers */
  bodies: Set<string>
  /** 201 answers without `Idempotency-Replayed` */
  firstAnswers: number
  replays: number
}

/** A request; times on the clock of `performance.now`. */
export interface Exchange {
  instance: number
  beganAt: number
  endedAt: number
  /** status and code, or the error of the connection */
  result: string
}

/** What all clients wrote down. */
export interface Journal {
  orders: Map<string, SentOrder>
  exchanges: Exchange[]
  /** what came of orders, and of other bodies under used keys: how often which result */
  results: Map<string, number>
  changedResults: Map<string, number>
  retries: number
  /** when the last client had its last new order answered; on the clock of `performance.now` */
  allAnsweredAt: number
}

export const TIMED_OUT = 'timed out'

export function createJournal(): Journal {
  return {
    orders: new Map(),
    exchanges: [],
    results: new Map(),
    changedResults: new Map(),
    retries: 0,
    allAnsweredAt: Number.POSITIVE_INFINITY,
  }
}

export function count(counts: Map<string, number>, name: string): void {
  counts.set(name, (counts.get(name) ?? 0) + 1)
}
