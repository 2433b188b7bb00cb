import { LRUCache } from 'lru-cache'
import type { Answer, AnsweredRequest } from './store.ts'

/** What an entry weighs beside its texts: the objects that hold it, measured roughly. */
const ENTRY_OVERHEAD_BYTES = 400

interface Entry {
  request: AnsweredRequest
  expiresAt: number
}

/**
 * Finished answers in the memory of this process, each for its time. Bounded: beyond its size those
 * used longest ago are forgotten.
 *
 * @param options `maxBytes`: of all answers, about; `now`: a clock in ms that never goes back
 */
export class AnswerCache {
  readonly #now: () => number
  readonly #entries: LRUCache<string, Entry>

  constructor(options: { maxBytes: number; maxEntries?: number; now?: () => number }) {
    const { maxBytes, maxEntries, now = () => performance.now() } = options
    this.#now = now
    this.#entries = new LRUCache({
      ...(maxEntries !== undefined && { max: maxEntries }),
      maxSize: maxBytes,
      sizeCalculation: ({ request }, key) => sizeOf(key, request.fingerprint, request.answer),
    })
  }

  get size(): number {
    return this.#entries.size
  }

  get(key: string): AnsweredRequest | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    if (entry.expiresAt > this.#now()) return entry.request
    this.#entries.delete(key)
    return undefined
  }

  set(key: string, request: AnsweredRequest, ttlMs: number): void {
    this.#entries.set(key, { request, expiresAt: this.#now() + ttlMs })
  }

  /** Frees the room of what has expired; `get` does not find it in any case. */
  sweep(): void {
    for (const [key, { expiresAt }] of this.#entries.entries()) {
      if (expiresAt <= this.#now()) this.#entries.delete(key)
    }
  }
}

/** About how many bytes an entry takes; a string of Latin letters takes one a character. */
function sizeOf(key: string, fingerprint: string, { body, headers }: Answer): number {
  let size = ENTRY_OVERHEAD_BYTES + key.length + fingerprint.length + Buffer.byteLength(body)
  for (const name in headers) size += name.length + `${headers[name]}`.length
  return size
}
