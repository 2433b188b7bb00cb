/** There is more to send than can be sent in time. */
export class QueueFullError extends Error {
  override name = 'QueueFullError'
  readonly statusCode = 503
}

export interface BatcherOptions<Item, Result> {
  /**
   * Sends items, at most `maxItems` of them.
   *
   * @returns their results, in their order; one that is a promise settles its own item alone
   * @throws if all the items fail together
   */
  send: (items: Item[]) => Promise<(Result | PromiseLike<Result>)[]>
  maxItems: number
  /** how many batches may be on their way at once; no bound */
  maxOnTheWay?: number
  /** how many items may wait for a batch; no bound */
  maxWaiting?: number
  /** told of each batch, how many items it has, when it is sent */
  onBatch?: ((size: number) => void) | undefined
}

interface Waiting<Item, Result> {
  item: Item
  resolve: (result: Result | PromiseLike<Result>) => void
  reject: (error: unknown) => void
}

/**
 * Sends together what is asked for one by one. It never waits for company: what one turn of the event
 * loop has brought goes when the turn ends; only while `maxOnTheWay` batches are on their way do the
 * next items gather, and go when one of these returns.
 */
export class Batcher<Item, Result> {
  readonly #options: BatcherOptions<Item, Result>
  readonly #maxOnTheWay: number
  readonly #maxWaiting: number
  #waiting: Waiting<Item, Result>[] = []
  #onTheWay = 0
  #isScheduled = false

  constructor(options: BatcherOptions<Item, Result>) {
    this.#options = options
    this.#maxOnTheWay = options.maxOnTheWay ?? Number.POSITIVE_INFINITY
    this.#maxWaiting = options.maxWaiting ?? Number.POSITIVE_INFINITY
  }

  /** How many items wait for a batch, and how many may. */
  get queue(): { waiting: number; limit: number } {
    return { waiting: this.#waiting.length, limit: this.#maxWaiting }
  }

  /**
   * Adds an item to the next batch.
   *
   * @returns its own result
   * @throws {QueueFullError} at once, if `maxWaiting` items wait already
   * @throws what `send` throws
   */
  add(item: Item): Promise<Result> {
    if (this.#waiting.length >= this.#maxWaiting) {
      return Promise.reject(new QueueFullError('the queue is full'))
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject })
      this.#schedule()
    })
  }

  #schedule(): void {
    if (this.#isScheduled || !this.#canSend()) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      while (this.#canSend()) void this.#sendNext()
    })
  }

  #canSend(): boolean {
    return this.#waiting.length > 0 && this.#onTheWay < this.#maxOnTheWay
  }

  async #sendNext(): Promise<void> {
    const { send, maxItems, onBatch } = this.#options
    const batch = this.#waiting.splice(0, maxItems)
    onBatch?.(batch.length)
    this.#onTheWay++
    try {
      const results = await send(batch.map(({ item }) => item))
      for (const [index, { resolve }] of batch.entries()) resolve(results[index] as Result)
    } catch (error) {
      for (const { reject } of batch) reject(error)
    } finally {
      this.#onTheWay--
      this.#schedule()
    }
  }
}
