import type { Worker } from 'node:cluster'
import { Batcher, Lane } from '../batcher.ts'
import type { CountHit, Hits } from './hits.ts'

/** What a worker asks its primary, one question at a time, and what it is told. */
interface Question {
  countHitsOf: string[]
}
interface Reply {
  countedHits: Hits[]
}

/** A message is copied as a whole: at some dozen bytes each. */
const MAX_HITS_A_QUESTION = 1_000

/** For a worker: counts in its primary, for all processes of the service together. */
export function createPrimaryHits(): CountHit {
  let tell = (_hits: Hits[]) => {}
  process.on('message', ({ countedHits }: Partial<Reply>) => countedHits && tell(countedHits))
  const hits = new Batcher<string, Hits>({
    maxItems: MAX_HITS_A_QUESTION,
    lane: new Lane(1),
    send: (clients) =>
      new Promise((resolve) => {
        tell = resolve
        const question: Question = { countHitsOf: clients }
        process.send?.(question)
      }),
  })
  return (client) => hits.add(client)
}

/** For a primary: counts for a worker. */
export function countHitsFor(worker: Worker, countHit: (client: string) => Hits): void {
  worker.on('message', ({ countHitsOf }: Partial<Question>) => {
    if (!countHitsOf) return
    const reply: Reply = { countedHits: countHitsOf.map(countHit) }
    if (worker.isConnected()) worker.send(reply)
  })
}
