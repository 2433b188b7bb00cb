/** Random choices that are the same for the same seed. */

/** Returns numbers from 0 to below 1. */
export type Random = () => number

/** The least and the greatest value, both included. */
export type Range = readonly [min: number, max: number]

/** Creates a mulberry32 generator: 32 bits of state are enough to choose faults. @param seed an integer */
export function createRandom(seed: number): Random {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

export function pickInteger(random: Random, [min, max]: Range): number {
  return min + Math.floor(random() * (max - min + 1))
}

/** @param items at least one */
export function pickOne<T>(random: Random, items: readonly T[]): T {
  return items[Math.floor(random() * items.length)] as T
}

/** Returns the items in a random order. */
export function shuffle<T>(random: Random, items: readonly T[]): T[] {
  const rest = [...items]
  return items.map(() => rest.splice(Math.floor(random() * rest.length), 1)[0] as T)
}
