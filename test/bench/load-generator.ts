import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { disown, own } from '../faults/owned-processes.ts'
import type { Answers, Load } from './load.ts'

const SCRIPT = fileURLToPath(new URL('load.ts', import.meta.url))

/** What sends requests, in a process of its own. */
export class LoadGenerator {
  readonly #child: ChildProcess

  constructor() {
    this.#child = fork(SCRIPT)
    const { pid } = this.#child
    if (pid === undefined) return
    own(pid)
    this.#child.once('exit', () => disown(pid))
  }

  /** Sends the requests, one load at a time. @throws if they could not be sent */
  async send(load: Load): Promise<Answers> {
    const ending = new AbortController()
    const exit = once(this.#child, 'exit', { signal: ending.signal }).then(() => {
      throw new Error('the load generator ended')
    })
    exit.catch(() => {}) // it ends at some time
    const message = once(this.#child, 'message', { signal: ending.signal })
    message.catch(() => {})
    try {
      this.#child.send(load)
      const [{ answers, error }] = await Promise.race([message, exit])
      if (error !== undefined) throw new Error(error)
      return answers
    } finally {
      ending.abort()
    }
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exit = once(this.#child, 'exit')
    this.#child.disconnect()
    await exit
  }
}
