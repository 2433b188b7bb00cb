import { randomUUID } from 'node:crypto'
import { withDeadline } from './deadline.ts'

/** The other process: for a primary one of its workers, for a worker `process`. */
interface Peer {
  send?(message: object, callback: (error: Error | null) => void): boolean
  on(event: 'message', listener: (message: unknown) => void): unknown
  off(event: 'message', listener: (message: unknown) => void): unknown
}

interface Question {
  question: string
  subject?: unknown
  id: string
}

interface Answer {
  answerTo: string
  answer: unknown
}

/**
 * Asks another process something that it answers by `answerPeer`.
 *
 * @param subject what the question is about, as JSON can hold it
 * @throws if it does not answer within `ms`
 */
export async function askPeer(
  peer: Peer,
  question: string,
  ms: number,
  subject?: unknown,
): Promise<unknown> {
  const id = randomUUID()
  let hear = (_message: unknown): void => {}
  const answer = new Promise((resolve, reject) => {
    hear = (message) => {
      const { answerTo, answer } = message as Partial<Answer>
      if (answerTo === id) resolve(answer)
    }
    peer.on('message', hear)
    const asked: Question = { question, id, subject }
    peer.send?.(asked, (error) => error && reject(error))
  })
  try {
    return await withDeadline(answer, ms, 'the other process did not answer')
  } finally {
    peer.off('message', hear)
  }
}

/**
 * Answers a question of another process, from now on, as often as it is asked. If `answer` fails, that
 * one hears nothing.
 */
export function answerPeer(
  peer: Peer,
  question: string,
  answer: (subject: unknown) => Promise<unknown>,
): void {
  peer.on('message', (message) => {
    const asked = message as Partial<Question>
    if (asked.question !== question || asked.id === undefined) return
    const answerTo = asked.id
    answer(asked.subject).then(
      (answer) => peer.send?.({ answerTo, answer } satisfies Answer, () => {}),
      () => {},
    )
  })
}
