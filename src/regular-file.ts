/** A check of the files that settings name. */
import { statSync } from 'node:fs'
import { StartError } from './start-error.ts'

/**
 * Checks that the path leads to a regular file. To read a pipe would wait for its writer, and a device may never
 * end.
 *
 * @param description the file, as the message names it
 * @throws {StartError} if it is another file, or a folder
 * @throws the error of the system, if it cannot be found
 */
export function requireRegularFile(path: string, description: string): void {
  if (!statSync(path).isFile()) throw new StartError(`${description} is not a regular file`)
}
