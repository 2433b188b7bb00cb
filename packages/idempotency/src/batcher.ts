/** Sends together what is added one by one. */

/** More items wait than can be sent in time. */
export class QueueFullError extends Error {
  override name = 'QueueFullError'
  readonly statusCode = 503
}

/** The item was not sent, because it was not needed any more. */
export class NotSentError extends Error {
  override name = 'NotSentError'
}

/** A batcher, as its concurrency limit sees it. */
interface Sender {
  readonly queue: { waiting: number }
  /** Sends at most one batch. @returns when its results are there; never rejects */
  sendBatch(): Promise<void>
}

/**
 * Limits how many batches are in flight. Batchers that share a limit send at the same moments, one
 * batch each: one round costs the server and this process less than several.
 */
export class ConcurrencyLimit {
  readonly #maxInFlight: number
  readonly #senders: Sender[] = []
  #inFlight = 0
  #isScheduled = false

  /** @param maxInFlight how many rounds of batches may be sent whose results are not there yet */
  constructor(maxInFlight: number) {
    this.#maxInFlight = maxInFlight
  }

  /** Adds a sender, whose batches then count towards the limit. */
  addSender(sender: Sender): void {
    this.#senders.push(sender)
  }

  /** Sends what waits at the end of this turn of the event loop, or as soon as the limit allows. */
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
      this.#inFlight < this.#maxInFlight && this.#senders.some(({ queue }) => queue.waiting > 0)
    )
  }

  async #send(): Promise<void> {
    this.#inFlight++
    await Promise.all(this.#senders.map((sender) => sender.sendBatch()))
    this.#inFlight--
    this.schedule()
  }
}

export interface BatcherOptions<Item, Result> {
  /**
   * Sends items, at most `maxItems` of them.
   *
   * @returns one result per item, in their order; a promise that rejects fails its own item alone
   * @throws if all the items fail together
   */
  send: (items: Item[]) => Promise<(Result | PromiseLike<Result>)[]>
  maxItems: number
  limit: ConcurrencyLimit
  /** how many items may wait for a batch; no bound by default */
  maxWaiting?: number
  /** whether the item is still needed when its batch is sent; by default each is */
  isNeeded?: ((item: Item) => boolean) | undefined
  /** called with the number of items of each batch when it is sent */
  onBatch?: ((size: number) => void) | undefined
}

interface Waiting<Item, Result> {
  item: Item
  resolve: (result: Result | PromiseLike<Result>) => void
  reject: (error: unknown) => void
}

/**
 * Collects items and sends them in batches. It never delays a batch to make it larger: the items of
 * one turn of the event loop are sent at its end. While the concurrency limit is reached, items
 * collect, and are sent as soon as it allows.
 */
export class Batcher<Item, Result> implements Sender {
  readonly #options: BatcherOptions<Item, Result>
  readonly #maxWaiting: number
  #waiting: Waiting<Item, Result>[] = []

  constructor(options: BatcherOptions<Item, Result>) {
    this.#options = options
    this.#maxWaiting = options.maxWaiting ?? Number.POSITIVE_INFINITY
    options.limit.addSender(this)
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
   * @throws {NotSentError} if the item was not needed any more when its turn came
   * @throws what `send` throws
   */
  add(item: Item): Promise<Result> {
    if (this.#waiting.length >= this.#maxWaiting) {
      return Promise.reject(new QueueFullError('the queue is full'))
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject })
      this.#options.limit.schedule()
    })
  }

  async sendBatch(): Promise<void> {
    const { send, onBatch } = this.#options
    const batch = this.#takeBatch()
    if (batch.length === 0) return
    try {
      onBatch?.(batch.length)
      const results = await send(batch.map(({ item }) => item))
      if (results.length !== batch.length) {
        throw new Error(`a batch of ${batch.length} items has ${results.length} results`)
      }
      batch.forEach(({ resolve }, i) => void resolve(results[i] as Result))
    } catch (error) {
      for (const { reject } of batch) reject(error)
    }
  }

  #takeBatch(): Waiting<Item, Result>[] {
    const { maxItems, isNeeded } = this.#options
    if (isNeeded === undefined) return this.#waiting.splice(0, maxItems)
    const batch: Waiting<Item, Result>[] = []
    let taken = 0
    for (const waiting of this.#waiting) {
      if (batch.length === maxItems) break
      taken++
      if (isNeeded(waiting.item)) batch.push(waiting)
      else waiting.reject(new NotSentError('the call was not needed any more'))
    }
    this.#waiting.splice(0, taken)
    return batch
  }
}
