import type { IncomingMessage, Server } from 'node:http'
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
  server.on('request', (request, response) => {
    const requests = requestsOn.get(request.socket)
    requests?.add(request)
    response.once('close', () => requests?.delete(request))
  })
  return {
    isAtWork: (socket) => [...(requestsOn.get(socket) ?? [])].some(({ complete }) => complete),
    endUnused: () => {
      for (const socket of requestsOn.keys()) if (socket.bytesRead === 0) socket.destroy()
    },
  }
}
