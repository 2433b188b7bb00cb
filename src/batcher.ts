/** There is more to send than can be sent in time. */
export class QueueFullError extends Error {
  override name = 'QueueFullError'
  readonly statusCode = 503
}

/** One of those that send on a lane. */
interface Sender {
  readonly queue: { waiting: number }
  /** Sends what waits, as much as fits into one batch. @returns when it has returned; never rejects */
  sendBatch(): Promise<void>
}

/**
 * Where batches are on their way, few at a time. Batchers that share a lane send at the same moments,
 * one batch each: so what they send wakes the other side once, and its answers wake us once.
 */
export class Lane {
  readonly #maxOnTheWay: number
  readonly #senders: Sender[] = []
  #onTheWay = 0
  #isScheduled = false

  /** @param maxOnTheWay how many times batches may have been sent that have not all returned */
  constructor(maxOnTheWay: number) {
    this.#maxOnTheWay = maxOnTheWay
  }

  join(sender: Sender): void {
    this.#senders.push(sender)
  }

  /** Has what waits sent when this turn of the event loop ends, or as soon as the lane is free. */
  schedule(): void {
    if (this.#isScheduled || !this.#canSend()) return
    this.#isScheduled = true
    setImmediate(() => {
      this.#isScheduled = false
      while (this.#canSend()) void this.#send()
    })
  }

  #canSend(): boolean {
    return (
      this.#onTheWay < this.#maxOnTheWay && this.#senders.some(({ queue }) => queue.waiting > 0)
    )
  }

  async #send(): Promise<void> {
    this.#onTheWay++
    await Promise.all(this.#senders.map((sender) => sender.sendBatch()))
    this.#onTheWay--
    this.schedule()
  }
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
  lane: Lane
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
 * loop has brought goes when the turn ends; only while the lane is full do the next items gather, and
 * go when it is free again.
 */
export class Batcher<Item, Result> implements Sender {
  readonly #options: BatcherOptions<Item, Result>
  readonly #maxWaiting: number
  #waiting: Waiting<Item, Result>[] = []

  constructor(options: BatcherOptions<Item, Result>) {
    this.#options = options
    this.#maxWaiting = options.maxWaiting ?? Number.POSITIVE_INFINITY
    options.lane.join(this)
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
      this.#options.lane.schedule()
    })
  }

  async sendBatch(): Promise<void> {
    const { send, maxItems, onBatch } = this.#options
    const batch = this.#waiting.splice(0, maxItems)
    if (batch.length === 0) return
    onBatch?.(batch.length)
    try {
      const results = await send(batch.map(({ item }) => item))
      for (const [index, { resolve }] of batch.entries()) resolve(results[index] as Result)
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
  }
}
