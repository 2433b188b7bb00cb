/** A progress bar for a terminal. */

/** Leaves room for the numbers in a terminal of 80 columns. */
const WIDTH = 40

/**
 * Creates a progress bar on stderr. It draws nothing if stderr is not a terminal.
 *
 * @returns a function that draws how many of `total` are done, and removes the bar when all are
 */
export function createProgressBar(total: number): (done: number) => void {
  if (!process.stderr.isTTY) return () => {}
  return (done) => {
    const filled = Math.floor((WIDTH * done) / total)
    const bar = `[${'#'.repeat(filled)}${' '.repeat(WIDTH - filled)}] ${done} of ${total}`
    process.stderr.write(done < total ? `\r${bar}` : `\r${' '.repeat(bar.length)}\r`)
  }
}
