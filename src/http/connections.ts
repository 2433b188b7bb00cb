/** Tracks the open connections of a server, and bounds the requests in flight on each of them. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/**
 * A client that sends requests and never reads keeps their responses in memory. Clients that pipeline at all
 * send a few requests at once; 32 of the largest responses are less than 1 MiB.
 */
export const MAX_REQUESTS_PER_CONNECTION = 32

export interface Connections {
  /** Adds a new connection. */
  add(socket: Socket): void
  /** Whether to handle a request; if its connection has too many in flight, closes the connection. */
  admit(request: IncomingMessage, response: ServerResponse): boolean
  /** Whether a request that has arrived completely waits for its response on this connection. */
  hasRequestInFlight(socket: Socket): boolean
  /** Closes the connections without such a request. */
  closeUnused(): void
  /** Resolves when no connection is open. */
  waitUntilNone(): Promise<void>
}

/** The requests of one connection. Their responses are sent in the order of the requests. */
interface Requests {
  inFlight: number
  last: IncomingMessage | undefined
}

/** Starts to track connections. The caller adds each new connection and calls `admit` before it handles a request. */
export function trackConnections(): Connections {
  const requestsBySocket = new Map<Socket, Requests>()
  let resolveNone: (() => void) | undefined

  function removeConnection(this: Socket): void {
    requestsBySocket.delete(this)
    if (requestsBySocket.size === 0) resolveNone?.()
  }
  function removeRequest(this: ServerResponse): void {
    const requests = requestsBySocket.get(this.req.socket)
    if (requests && --requests.inFlight === 0) requests.last = undefined
  }
  /** Only the last request can be incomplete. */
  function hasRequestInFlight(socket: Socket): boolean {
    const { inFlight = 0, last } = requestsBySocket.get(socket) ?? {}
    return inFlight > 1 || (inFlight === 1 && last?.complete === true)
  }

  return {
    add(socket) {
      // Node keeps the address after it was read once. After a reset, it can no longer be read.
      if (socket.remoteAddress === undefined) return void socket.destroy()
      requestsBySocket.set(socket, { inFlight: 0, last: undefined })
      socket.once('close', removeConnection)
    },
    admit(request, response) {
      const { socket } = request
      const requests = requestsBySocket.get(socket)
      // Node goes on delivering the requests that it read before the connection was closed.
      if (requests === undefined || socket.destroyed) return false
      if (requests.inFlight === MAX_REQUESTS_PER_CONNECTION) {
        socket.destroy()
        return false
      }
      requests.inFlight++
      requests.last = request
      response.on('close', removeRequest)
      return true
    },
    hasRequestInFlight,
    closeUnused() {
      for (const socket of requestsBySocket.keys()) {
        if (!hasRequestInFlight(socket)) socket.destroy()
      }
    },
    waitUntilNone() {
      return new Promise((resolve) => {
        resolveNone = resolve
        if (requestsBySocket.size === 0) resolve()
      })
    },
  }
}
