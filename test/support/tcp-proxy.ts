/** A proxy that does to connections what networks do. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** A connection through the proxy. */
interface Link {
  /** to the client */
  client: Socket
  /** to the server behind the proxy */
  server: Socket
}

/**
 * Passes bytes on between clients and a server on 127.0.0.1, or does what networks do to them. If the
 * server is restarted on another port, set `serverPort`.
 */
export class TcpProxy {
  serverPort: number
  /** How long bytes take in each direction, in ms. */
  latencyMs = 0
  /** How many of these bytes to pass on to the server before the connection is closed; undefined: all. */
  cutRequestAfter: (bytes: Buffer) => number | undefined = () => undefined
  /** Whether to close the connection instead of passing on these bytes from the server. */
  dropReply: (bytes: Buffer) => boolean = () => false
  readonly #server: Server
  readonly #links = new Set<Link>()
  #silent = false

  private constructor(serverPort: number) {
    this.serverPort = serverPort
    this.#server = createServer({ pauseOnConnect: true, noDelay: true }, (client) =>
      this.#link(client),
    )
  }

  /** Starts a proxy on a free port of 127.0.0.1. */
  static async start(serverPort: number): Promise<TcpProxy> {
    const proxy = new TcpProxy(serverPort)
    await once(proxy.#server.listen(0, '127.0.0.1'), 'listening')
    return proxy
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** The client ports of the present connections, as the server sees them. */
  get serverSidePorts(): number[] {
    return [...this.#links].flatMap(({ server }) => server.localPort ?? [])
  }

  /** Resets all present connections. */
  resetAll(): void {
    for (const { client, server } of this.#links) {
      client.resetAndDestroy()
      server.resetAndDestroy()
    }
  }

  /** Passes nothing on until `resume`, but accepts connections. */
  silence(): void {
    this.#silent = true
    this.silencePresent()
  }

  /** Passes nothing on of the present connections: their host is gone. New ones work. */
  silencePresent(): void {
    for (const { client, server } of this.#links) {
      client.pause()
      server.pause()
    }
  }

  /** Passes on what was kept back, and what comes from now on. */
  resume(): void {
    this.#silent = false
    for (const { client, server } of this.#links) {
      client.resume()
      server.resume()
    }
  }

  async close(): Promise<void> {
    this.#server.close()
    this.resetAll()
    await once(this.#server, 'close')
  }

  #link(client: Socket): void {
    const server = connect({ host: '127.0.0.1', port: this.serverPort, noDelay: true })
    const link = { client, server }
    this.#links.add(link)
    const close = () => {
      client.destroy()
      server.destroy()
    }
    const toServer = this.#channel(server)
    const toClient = this.#channel(client)

    client.on('data', (bytes) => {
      const count = this.cutRequestAfter(bytes)
      if (count === undefined) return toServer.send(bytes)
      // The rest would complete the statement.
      client.removeAllListeners('data').resume()
      server.write(bytes.subarray(0, count), close)
    })
    server.on('data', (bytes) => {
      if (this.dropReply(bytes)) close()
      else toClient.send(bytes)
    })
    for (const [socket, onwards] of [
      [client, toServer],
      [server, toClient],
    ] as const) {
      socket.on('error', () => {}) // 'close' follows
      socket.on('close', () => {
        this.#links.delete(link)
        onwards.end()
      })
    }
    if (this.#silent) server.pause()
    else client.resume()
  }

  /** Passes on bytes and the end of the connection in their order, each after the present latency. */
  #channel(to: Socket) {
    let waiting = 0
    let last: Promise<unknown> = Promise.resolve()
    const runInOrder = (action: () => void) => {
      if (this.latencyMs === 0 && waiting === 0) return action()
      waiting++
      last = Promise.all([last, sleep(this.latencyMs)]).then(() => {
        waiting--
        action()
      })
    }
    return {
      send: (bytes: Buffer) => runInOrder(() => void (to.writable && to.write(bytes))),
      end: () => runInOrder(() => to.destroySoon()),
    }
  }
}
