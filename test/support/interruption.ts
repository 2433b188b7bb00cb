/** What ends a program before its time: a signal. */

/** More than a stop takes: it waits at most for a store that is starting. */
const FORCE_EXIT_AFTER_MS = 20_000

/**
 * Calls `stop` for each signal that ends a program, and ends it if it has not ended after `FORCE_EXIT_AFTER_MS`. Ctrl-C
 * comes several times: from the terminal, from npm and from tsx.
 */
export function onInterruption(stop: (signal: NodeJS.Signals) => void): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      stop(signal)
      setTimeout(() => process.exit(1), FORCE_EXIT_AFTER_MS)
    })
  }
}
