/** A private Redis that can be killed, started again and paused. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { Redis } from 'ioredis'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { until } from '../support/until.ts'
import { killChildAtExit } from './exit-cleanup.ts'

/** It keeps nothing on disk: after `kill` its data is lost. */
export class RedisServer {
  readonly port: number
  readonly #program: string
  #child: ChildProcess

  private constructor(port: number, program: string) {
    this.port = port
    this.#program = program
    this.#child = this.#spawn()
  }

  /** @throws if neither `redis-server` nor `valkey-server` is on the PATH */
  static async start(): Promise<RedisServer> {
    const program = ['redis-server', 'valkey-server'].find(
      (name) => spawnSync(name, ['--version']).status === 0,
    )
    if (!program) throw new Error('there is no redis-server or valkey-server on the PATH')
    const server = new RedisServer(await freePort(), program)
    await server.#waitUntilReady()
    return server
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exit = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exit
  }

  /** Starts it again after `kill`, on the same port. */
  async restart(): Promise<void> {
    this.#child = this.#spawn()
    await this.#waitUntilReady()
  }

  pause(): void {
    this.#child.kill('SIGSTOP')
  }

  resume(): void {
    this.#child.kill('SIGCONT')
  }

  /** Runs commands on a connection of their own. */
  async run(commands: (redis: Redis) => Promise<unknown>): Promise<void> {
    const redis = new Redis(this.port, { lazyConnect: true, retryStrategy: () => null })
    redis.on('error', () => {}) // `connect` rejects
    try {
      await redis.connect()
      await commands(redis)
    } finally {
      redis.disconnect()
    }
  }

  async #waitUntilReady(): Promise<void> {
    await until(() =>
      this.run((redis) => redis.ping()).then(
        () => true,
        () => false,
      ),
    )
  }

  #spawn(): ChildProcess {
    const args = ['--port', `${this.port}`, '--bind', '127.0.0.1', '--save', '']
    const child = spawn(this.#program, args, { stdio: 'ignore' })
    killChildAtExit(child)
    return child
  }
}
