/** How often a client came in the present window, this time included, and when the window ends. */
export interface Hits {
  current: number
  /** until the window ends, in ms */
  ttl: number
}

/**
 * Counts one request of a client, at once where nobody is asked.
 *
 * @throws if there is nothing to count in now
 */
export type CountHit = (client: string) => Hits | Promise<Hits>
