/** Requests and replies between a primary and its workers. */
import { randomUUID } from 'node:crypto'
import { withDeadline } from '@order-once/idempotency/batching'

/** The other process: for a primary one of its workers, for a worker `process`. */
interface Peer {
  send?(message: object, callback: (error: Error | null) => void): boolean
  on(event: 'message' | 'disconnect', listener: (message: unknown) => void): unknown
  off(event: 'message' | 'disconnect', listener: (message: unknown) => void): unknown
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
  let onDisconnect = (): void => {}
  const reply = new Promise((resolve, reject) => {
    onMessage = (message) => {
      const { replyTo, reply } = message as Partial<IpcReply>
      if (replyTo === id) resolve(reply)
    }
    onDisconnect = () => reject(new Error('the other process is gone'))
    peer.on('message', onMessage)
    peer.on('disconnect', onDisconnect)
    const sent: IpcRequest = { request, id }
    peer.send?.(sent, (error) => error && reject(error))
  })
  try {
    return await withDeadline(reply, timeoutMs, 'the other process did not reply')
  } finally {
    peer.off('message', onMessage)
    peer.off('disconnect', onDisconnect)
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
