/** Responses in the memory of this process, each for its time to live. */
import { LRUCache } from 'lru-cache'
import type { Claim, CompletedRequest, IdempotencyStore, StoredResponse } from './store.ts'

/** The objects that hold an entry, beside its texts: measured roughly. */
const ENTRY_OVERHEAD_BYTES = 400

/** About 20 000 responses of orders: repeats come within seconds, and many at once. */
const DEFAULT_CACHE_BYTES = 16 * 1024 * 1024

/**
 * Repeats come within seconds. A response that is deleted from its store, since its key is released or a
 * person's data are erased, must be gone soon.
 */
const MAX_CACHE_MS = 60_000

interface Entry {
  request: CompletedRequest
  expiresAt: number
}

/**
 * A bounded cache: beyond its size the responses that were used longest ago are dropped.
 *
 * @param options `maxBytes`: of all responses, roughly; `now`: a clock in ms that never goes back
 */
export class ResponseCache {
  readonly #now: () => number
  readonly #entries: LRUCache<string, Entry>

  constructor(options: { maxBytes: number; maxEntries?: number; now?: () => number }) {
    const { maxBytes, maxEntries, now = () => performance.now() } = options
    this.#now = now
    this.#entries = new LRUCache({
      ...(maxEntries !== undefined && { max: maxEntries }),
      maxSize: maxBytes,
      sizeCalculation: ({ request }, key) => estimateBytes(key, request),
    })
  }

  get size(): number {
    return this.#entries.size
  }

  get(key: string): CompletedRequest | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    if (entry.expiresAt > this.#now()) return entry.request
    this.#entries.delete(key)
    return undefined
  }

  set(key: string, request: CompletedRequest, ttlMs: number): void {
    this.#entries.set(key, { request, expiresAt: this.#now() + ttlMs })
  }

  /** Frees the memory of expired responses, which `get` does not return in any case. */
  deleteExpired(): void {
    for (const [key, { expiresAt }] of this.#entries.entries()) {
      if (expiresAt <= this.#now()) this.#entries.delete(key)
    }
  }
}

/** What a claim finds under a key that is completed. */
export function claimCompleted(request: CompletedRequest, fingerprint: string): Claim {
  if (request.fingerprint !== fingerprint) return { state: 'mismatch', isCompleted: true }
  return { state: 'completed', response: request.response }
}

/**
 * Puts a cache in front of a store's `claim`. It keeps the responses that were repeated, for as long as
 * the store keeps them, at most `MAX_CACHE_MS`: they never change, so the next repeats do not need the
 * store. (Responses that are never repeated, as most are, would only pass through memory.)
 *
 * @param options `maxBytes`: of all responses, roughly; `now`: a clock in ms that never goes back
 */
export function cacheRepeats(
  claim: IdempotencyStore['claim'],
  { maxBytes = DEFAULT_CACHE_BYTES, now }: { maxBytes?: number; now?: () => number } = {},
): IdempotencyStore['claim'] {
  const cache = new ResponseCache({ maxBytes, ...(now && { now }) })

  async function claimAndRemember(
    key: string,
    fingerprint: string,
    token: string,
    sendUntil?: number,
  ): Promise<Claim> {
    const found = await claim(key, fingerprint, token, sendUntil)
    if (found.state === 'completed' && found.remainingMs !== undefined) {
      cache.set(
        key,
        { fingerprint, response: found.response },
        Math.min(found.remainingMs, MAX_CACHE_MS),
      )
    }
    return found
  }

  return (key, fingerprint, token, sendUntil) => {
    const cached = cache.get(key)
    return cached
      ? claimCompleted(cached, fingerprint)
      : claimAndRemember(key, fingerprint, token, sendUntil)
  }
}

/** Estimates the memory of a response. A string of Latin letters takes one byte per character. */
export function estimateBytes(key: string, { fingerprint, response }: CompletedRequest): number {
  const { body, headers }: StoredResponse = response
  let bytes = ENTRY_OVERHEAD_BYTES + key.length + fingerprint.length + Buffer.byteLength(body)
  for (const name in headers) bytes += name.length + `${headers[name]}`.length
  return bytes
}
