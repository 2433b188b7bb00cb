/** Tracks the open connections of a server, and the requests in flight on them. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

export interface Connections {
  /** Whether a request that has arrived completely waits for its response on this connection. */
  hasRequestInFlight(socket: Socket): boolean
  /** Closes the connections on which nothing was ever sent: Node does not count them as idle. */
  closeUnused(): void
}

/** Tracks the connections from now on; call it before the server listens. */
export function trackConnections(server: Server): Connections {
  const requestsBySocket = new Map<Socket, Set<IncomingMessage>>()
  server.on('connection', (socket: Socket) => {
    requestsBySocket.set(socket, new Set())
    socket.once('close', () => requestsBySocket.delete(socket))
  })
  function removeRequest(this: ServerResponse): void {
    requestsBySocket.get(this.req.socket)?.delete(this.req)
  }
  server.on('request', (request, response) => {
    requestsBySocket.get(request.socket)?.add(request)
    response.on('close', removeRequest)
  })
  return {
    hasRequestInFlight: (socket) =>
      [...(requestsBySocket.get(socket) ?? [])].some(({ complete }) => complete),
    closeUnused: () => {
      for (const socket of requestsBySocket.keys()) if (socket.bytesRead === 0) socket.destroy()
    },
  }
}
