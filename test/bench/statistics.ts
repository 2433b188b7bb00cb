/** Where a figure lay in several rounds. */
export interface Spread {
  median: number
  min: number
  max: number
}

/** The median of the figures and their extremes. @param figures at least one */
export function spreadOf(figures: number[]): Spread {
  const sorted = [...figures].sort((a, b) => a - b)
  const at = (index: number) => sorted[index] as number
  const middle = (sorted.length - 1) / 2
  return {
    median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2,
    min: at(0),
    max: at(sorted.length - 1),
  }
}

/** The smallest value that at least the given share of all is not above (nearest rank). */
export function quantile(sorted: Float64Array, share: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}

/** The mean of the values. */
export function meanOf(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}
