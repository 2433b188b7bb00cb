/** Requests and replies between a primary and its workers. */
import { randomUUID } from 'node:crypto'
import { withDeadline } from '@order-once/idempotency/batching'

/** Both: Node emits no 'disconnect' for a worker that dies before it has accepted a connection. */
const GONE_EVENTS = ['disconnect', 'exit'] as const
type GoneEvent = (typeof GONE_EVENTS)[number]

/** The other process: for a primary one of its workers, for a worker `process`. */
interface Peer {
  send?(message: object, callback: (error: Error | null) => void): boolean
  on(event: 'message' | GoneEvent, listener: (message: unknown) => void): unknown
  off(event: 'message' | GoneEvent, listener: (message: unknown) => void): unknown
}

interface IpcRequest {
  request: string
  id: string
}

interface IpcReply {
  replyTo: string
  reply: unknown
}

/**
 * Sends a request to another process, which replies by `replyToPeer`.
 *
 * @throws if the other process is gone, or does not reply within `timeoutMs`
 */
export async function requestFromPeer(
  peer: Peer,
  request: string,
  timeoutMs: number,
): Promise<unknown> {
  const id = randomUUID()
  let onMessage = (_message: unknown): void => {}
  let onGone = (): void => {}
  const reply = new Promise((resolve, reject) => {
    onMessage = (message) => {
      const { replyTo, reply } = message as Partial<IpcReply>
      if (replyTo === id) resolve(reply)
    }
    onGone = () => reject(new Error('the other process is gone'))
    peer.on('message', onMessage)
    for (const event of GONE_EVENTS) peer.on(event, onGone)
    const sent: IpcRequest = { request, id }
    peer.send?.(sent, (error) => error && reject(error))
  })
  try {
    return await withDeadline(reply, timeoutMs, 'the other process did not reply')
  } finally {
    peer.off('message', onMessage)
    for (const event of GONE_EVENTS) peer.off(event, onGone)
  }
}

/** Replies to a request of another process from now on. If `createReply` fails, nothing is sent. */
export function replyToPeer(
  peer: Peer,
  request: string,
  createReply: () => Promise<unknown>,
): void {
  peer.on('message', (message) => {
    const received = message as Partial<IpcRequest>
    if (received.request !== request || received.id === undefined) return
    const replyTo = received.id
    createReply().then(
      (reply) => peer.send?.({ replyTo, reply } satisfies IpcReply, () => {}),
      () => {},
    )
  })
}
