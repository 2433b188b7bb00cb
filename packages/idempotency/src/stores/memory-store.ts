/** A store in the memory of this process: for one process, in development and in tests. */
import { checkReplayedHeaders, DEFAULT_REPLAYED_HEADERS } from '../replayed-headers.ts'
import { claimCompleted, ResponseCache } from './response-cache.ts'
import type { Claim, IdempotencyStore } from './store.ts'

/** Some minutes of responses of one process, a few hundred bytes each. */
const DEFAULT_MAX_ENTRIES = 100_000
const DEFAULT_MAX_BYTES = 64 * 1024 * 1024

/** Expired entries are never returned; this is how long they may still take up memory. */
const SWEEP_INTERVAL_MS = 30_000

interface InFlight {
  fingerprint: string
  token: string
  expiresAt: number
}

/**
 * Creates a bounded store in memory: beyond its size the responses that were used longest ago are
 * dropped, and further claims are refused.
 *
 * @param options `leaseMs`: how long a claim lasts; `ttlMs`: how long a response is kept;
 * `replayedHeaders`: the headers that are stored and replayed; `maxEntries`: of claims, and of responses;
 * `maxBytes`: of all responses, roughly; `now`: a clock in ms that never goes back
 */
export function createMemoryStore(options: {
  leaseMs: number
  ttlMs: number
  replayedHeaders?: string[]
  maxEntries?: number
  maxBytes?: number
  now?: () => number
}): IdempotencyStore {
  const { leaseMs, ttlMs, now = () => performance.now() } = options
  const { replayedHeaders = DEFAULT_REPLAYED_HEADERS } = options
  const { maxEntries = DEFAULT_MAX_ENTRIES, maxBytes = DEFAULT_MAX_BYTES } = options
  const claims = new Map<string, InFlight>()
  const responses = new ResponseCache({ maxEntries, maxBytes, now })
  const watchers = new Map<string, Set<() => void>>()
  let sweepTimer: NodeJS.Timeout | undefined

  /** The claim on the key, unless its lease has ended. */
  function findClaim(key: string): InFlight | undefined {
    const claim = claims.get(key)
    if (claim === undefined || claim.expiresAt > now()) return claim
    claims.delete(key)
    return undefined
  }

  function putClaim(key: string, fingerprint: string, token: string): void {
    claims.set(key, { fingerprint, token, expiresAt: now() + leaseMs })
    scheduleSweep()
  }

  /** Runs only while there is something to delete, so that an unused store can be collected. */
  function scheduleSweep(): void {
    if (sweepTimer) return
    sweepTimer = setTimeout(() => {
      sweepTimer = undefined
      for (const key of claims.keys()) findClaim(key)
      responses.deleteExpired()
      if (responses.size + claims.size > 0) scheduleSweep()
    }, SWEEP_INTERVAL_MS).unref()
  }

  function endClaim(key: string): void {
    claims.delete(key)
    for (const onChange of watchers.get(key) ?? []) onChange()
  }

  return {
    leaseMs,
    ttlMs,
    replayedHeaders: checkReplayedHeaders(replayedHeaders),

    async claim(key, fingerprint, token): Promise<Claim> {
      const completed = responses.get(key)
      if (completed) return claimCompleted(completed, fingerprint)
      const claim = findClaim(key)
      if (claim && claim.token !== token) {
        if (claim.fingerprint !== fingerprint) return { state: 'mismatch', isCompleted: false }
        return { state: 'in_flight', remainingMs: claim.expiresAt - now() }
      }
      if (!claim && claims.size >= maxEntries) throw new Error('too many keys are claimed at once')
      putClaim(key, fingerprint, token)
      return { state: 'new' }
    },

    async renew(key, fingerprint, token) {
      const claim = findClaim(key)
      if (responses.get(key) || (claim && claim.token !== token)) return false
      putClaim(key, fingerprint, token)
      return true
    },

    async complete(key, token, request) {
      const claim = findClaim(key)
      if ((claim && claim.token !== token) || responses.get(key)) return
      responses.set(key, request, ttlMs)
      scheduleSweep()
      endClaim(key)
    },

    async release(key, token) {
      if (findClaim(key)?.token === token) endClaim(key)
    },

    async watch(key, onChange) {
      const listeners = watchers.get(key) ?? new Set()
      watchers.set(key, listeners.add(onChange))
      return () => {
        listeners.delete(onChange)
        if (listeners.size === 0 && watchers.get(key) === listeners) watchers.delete(key)
      }
    },
  }
}
