/** A proxy that does to connections what networks do. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** A connection through the proxy. */
interface Link {
  /** to the client */
  near: Socket
  /** to the server behind the proxy */
  far: Socket
}

const never = () => false as const

/**
 * Passes bytes on between clients and a server on 127.0.0.1, or does what networks do to them. If the
 * server is restarted on another port, set `serverPort`.
 */
export class TcpProxy {
  serverPort: number
  /** How long bytes take in each direction, in ms. */
  latencyMs = 0
  /** Whether to pass on only a part of these bytes to the server, and then to cut their connection. */
  tearsRequest: (bytes: Buffer) => false | { afterBytes: number } = never
  /** Whether to drop these bytes from the server, and then to cut their connection. */
  swallowsReply: (bytes: Buffer) => boolean = never
  readonly #server: Server
  readonly #links = new Set<Link>()
  #silent = false

  private constructor(serverPort: number) {
    this.serverPort = serverPort
    this.#server = createServer({ pauseOnConnect: true, noDelay: true }, (near) => this.#link(near))
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

  /** The ports from which the server sees the present connections come. */
  get farPorts(): number[] {
    return [...this.#links].flatMap(({ far }) => far.localPort ?? [])
  }

  /** Resets all present connections. */
  cutAll(): void {
    for (const { near, far } of this.#links) {
      near.resetAndDestroy()
      far.resetAndDestroy()
    }
  }

  /** Passes nothing on until `speak`, but accepts connections. */
  hush(): void {
    this.#silent = true
    for (const { near, far } of this.#links) {
      near.pause()
      far.pause()
    }
  }

  /** Passes on what was kept back, and what comes from now on. */
  speak(): void {
    this.#silent = false
    for (const { near, far } of this.#links) {
      near.resume()
      far.resume()
    }
  }

  async close(): Promise<void> {
    this.#server.close()
    this.cutAll()
    await once(this.#server, 'close')
  }

  #link(near: Socket): void {
    const far = connect({ host: '127.0.0.1', port: this.serverPort, noDelay: true })
    const link = { near, far }
    this.#links.add(link)
    const cut = () => {
      near.destroy()
      far.destroy()
    }
    const toFar = this.#channel(far)
    const toNear = this.#channel(near)

    near.on('data', (bytes) => {
      const tear = this.tearsRequest(bytes)
      if (!tear) return toFar.send(bytes)
      // The rest would complete the torn statement.
      near.removeAllListeners('data').resume()
      far.write(bytes.subarray(0, tear.afterBytes), cut)
    })
    far.on('data', (bytes) => {
      if (this.swallowsReply(bytes)) cut()
      else toNear.send(bytes)
    })
    for (const [socket, onwards] of [
      [near, toFar],
      [far, toNear],
    ] as const) {
      socket.on('error', () => {}) // 'close' follows
      socket.on('close', () => {
        this.#links.delete(link)
        onwards.end()
      })
    }
    if (this.#silent) far.pause()
    else near.resume()
  }

  /** Passes on bytes, and in the end the end, in their order, each after the latency of its time. */
  #channel(to: Socket) {
    let waiting = 0
    let last: Promise<unknown> = Promise.resolve()
    const inTurn = (act: () => void) => {
      if (this.latencyMs === 0 && waiting === 0) return act()
      waiting++
      last = Promise.all([last, sleep(this.latencyMs)]).then(() => {
        waiting--
        act()
      })
    }
    return {
      send: (bytes: Buffer) => inTurn(() => void (to.writable && to.write(bytes))),
      end: () => inTurn(() => to.destroySoon()),
    }
  }
}
