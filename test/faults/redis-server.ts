import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { Redis } from 'ioredis'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { until } from '../support/until.ts'
import { disown, own } from './owned-processes.ts'

/** A Redis of one's own that forgets everything when it is killed. */
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
    const isThere = (name: string) => spawnSync(name, ['--version']).status === 0
    const program = ['redis-server', 'valkey-server'].find(isThere)
    if (!program) throw new Error('there is no redis-server or valkey-server on the PATH')
    const server = new RedisServer(await freePort(), program)
    await server.#answers()
    return server
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exit = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exit
  }

  /** Starts it again after `kill`, empty, on the same port. */
  async restart(): Promise<void> {
    this.#child = this.#spawn()
    await this.#answers()
  }

  pause(): void {
    this.#child.kill('SIGSTOP')
  }

  resume(): void {
    this.#child.kill('SIGCONT')
  }

  async flush(): Promise<void> {
    await this.#ask((redis) => redis.flushall())
  }

  async #answers(): Promise<void> {
    await until(() =>
      this.#ask((redis) => redis.ping()).then(
        () => true,
        () => false,
      ),
    )
  }

  async #ask(question: (redis: Redis) => Promise<unknown>): Promise<void> {
    const redis = new Redis(this.port, { lazyConnect: true, retryStrategy: () => null })
    redis.on('error', () => {})
    try {
      await redis.connect()
      await question(redis)
    } finally {
      redis.disconnect()
    }
  }

  #spawn(): ChildProcess {
    const args = ['--port', `${this.port}`, '--bind', '127.0.0.1', '--save', '']
    const child = spawn(this.#program, args, { stdio: 'ignore' })
    const { pid } = child
    if (pid !== undefined) {
      own(pid)
      child.once('exit', () => disown(pid))
    }
    return child
  }
}
