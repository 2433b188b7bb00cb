import type { Worker } from 'node:cluster'
import { Batcher, Lane } from '../batcher.ts'
import { answerPeer, askPeer } from '../ipc.ts'
import type { CountHit, Hits } from './hits.ts'

const QUESTION = 'hits of these clients'

/** A message is copied as a whole: at some dozen bytes each. */
const MAX_HITS_A_QUESTION = 1_000
/** Rather than wait longer for a primary that hangs, a process counts alone. */
const DEADLINE_MS = 1_000

/** For a worker: counts in its primary, for all processes of the service together. */
export function createPrimaryHits(): CountHit {
  const hits = new Batcher<string, Hits>({
    maxItems: MAX_HITS_A_QUESTION,
    lane: new Lane(1),
    send: async (clients) => (await askPeer(process, QUESTION, DEADLINE_MS, clients)) as Hits[],
  })
  return (client) => hits.add(client)
}

/** For a primary: counts for a worker. */
export function countHitsFor(worker: Worker, countHit: (client: string) => Hits): void {
  answerPeer(worker, QUESTION, async (clients) => (clients as string[]).map(countHit))
}
