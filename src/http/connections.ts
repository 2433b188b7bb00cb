import type { Server } from 'node:http'
import type { Socket } from 'node:net'

/** The open connections of a server, and how many requests are at work on each. */
export interface Connections {
  isAtWork(socket: Socket): boolean
  /** Ends the connections on which nothing was ever sent, which Node does not count as idle. */
  endUnused(): void
}

/** Keeps count from now on; call it before the server listens. */
export function trackConnections(server: Server): Connections {
  const requestsAtWork = new Map<Socket, number>()
  server.on('connection', (socket: Socket) => {
    requestsAtWork.set(socket, 0)
    socket.once('close', () => requestsAtWork.delete(socket))
  })
  server.on('request', ({ socket }, response) => {
    const add = (change: number) => {
      const count = requestsAtWork.get(socket)
      if (count !== undefined) requestsAtWork.set(socket, count + change)
    }
    add(1)
    response.once('close', () => add(-1))
  })
  return {
    isAtWork: (socket) => (requestsAtWork.get(socket) ?? 0) > 0,
    endUnused: () => {
      for (const socket of requestsAtWork.keys()) if (socket.bytesRead === 0) socket.destroy()
    },
  }
}
