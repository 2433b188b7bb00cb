/** A check of the files that settings name. */
import type { Stats } from 'node:fs'
import { StartError } from './start-error.ts'

/**
 * Refuses what is not a regular file. To read a pipe would wait for its writer, and a device may never end.
 *
 * @param description the file, as the message names it
 * @throws {StartError}
 */
export function requireRegularFile(stats: Stats, description: string): void {
  if (!stats.isFile()) throw new StartError(`${description} is not a regular file`)
}
