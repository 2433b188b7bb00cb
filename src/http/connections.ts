import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** The open connections of a server, and the requests at work on them. */
export interface Connections {
  /** Whether a request that has arrived as a whole waits for its answer there. */
  isAtWork(socket: Socket): boolean
  /** Ends the connections on which nothing was ever sent, which Node does not count as idle. */
  endUnused(): void
}

/** Keeps count from now on; call it before the server listens. */
export function trackConnections(server: Server): Connections {
  const requestsOn = new Map<Socket, Set<IncomingMessage>>()
  server.on('connection', (socket: Socket) => {
    requestsOn.set(socket, new Set())
    socket.once('close', () => requestsOn.delete(socket))
  })
  function forget(this: ServerResponse): void {
    requestsOn.get(this.req.socket)?.delete(this.req)
  }
  server.on('request', (request, response) => {
    requestsOn.get(request.socket)?.add(request)
    response.on('close', forget)
  })
  return {
    isAtWork: (socket) => [...(requestsOn.get(socket) ?? [])].some(({ complete }) => complete),
    endUnused: () => {
      for (const socket of requestsOn.keys()) if (socket.bytesRead === 0) socket.destroy()
    },
  }
}
