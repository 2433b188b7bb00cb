const WIDTH = 40

/**
 * Draws a bar on stderr while something goes on, if that is a terminal.
 *
 * @returns to be told how much is done; the bar vanishes when all is
 */
export function progressBar(total: number): (done: number) => void {
  if (!process.stderr.isTTY) return () => {}
  return (done) => {
    const full = Math.floor((WIDTH * done) / total)
    const bar = `[${'#'.repeat(full)}${' '.repeat(WIDTH - full)}] ${done} of ${total}`
    process.stderr.write(done < total ? `\r${bar}` : `\r${' '.repeat(bar.length)}\r`)
  }
}
