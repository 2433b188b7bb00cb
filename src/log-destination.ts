/** Writes the log to standard output, whose failures never stop the service. */
import { fstatSync, writeSync } from 'node:fs'

const STDOUT = 1

/** About 3 000 lines: a reader that stops for a moment misses none, and the memory is bounded. */
const MAX_BUFFERED_BYTES = 1024 * 1024

let droppedLines = 0
let isDropping = false
/** whether the last line that this process wrote has no end, because the disk was full */
let isLineCut = false

/** How many log lines this process could not write, at least: those that a pipe loses when it ends are one. */
export const countDroppedLogLines = () => droppedLines

/**
 * Creates a destination for pino. A line is dropped and counted if its file cannot be written, such as on a
 * full disk, or if `MAX_BUFFERED_BYTES` are waiting for the reader of a pipe, or it has gone. The first line of
 * each such time is reported on standard error.
 * (pino's own destination, sonic-boom 4, tries again for ever on ENOSPC, EIO and EPIPE.)
 */
export function createLogDestination(): { write(line: string): void } {
  process.stdout.on('error', reportDrop)
  process.stderr.on('error', () => {}) // there is nowhere left to report it
  const { stdout } = process
  const isFile = !stdout.isTTY && isFileOrDevice()

  function writeToStream(line: string): void {
    if (!stdout.writable) throw new Error('its reader has gone')
    if (stdout.writableLength + Buffer.byteLength(line) > MAX_BUFFERED_BYTES) {
      throw new Error(`${stdout.writableLength} bytes are waiting for a reader`)
    }
    stdout.write(line, (error) => {
      if (!error) isDropping = false
    })
  }

  return {
    write(line) {
      try {
        // A stream would keep what it cannot write, and end with the first error.
        if (!isFile) return writeToStream(line)
        writeLine(line)
        isDropping = false
      } catch (error) {
        reportDrop(error)
      }
    },
  }
}

/** Writes to a file, which may take only a part of the last line before it is full. */
function writeLine(line: string): void {
  const bytes = Buffer.from(isLineCut ? `\n${line}` : line)
  const written = writeSync(STDOUT, bytes)
  if (written > 0) isLineCut = written < bytes.length
  if (written < bytes.length) throw new Error('only a part of a line was written')
}

function reportDrop(error: unknown): void {
  droppedLines++
  if (isDropping) return
  isDropping = true
  const reason = error instanceof Error ? error.message : String(error)
  try {
    process.stderr.write(`order-once: log lines are dropped, standard output fails: ${reason}\n`)
  } catch {
    // Standard error may be on the same full disk.
  }
}

/** Whether standard output is written at once: a file, or a device such as /dev/null. */
function isFileOrDevice(): boolean {
  const stat = fstatSync(STDOUT)
  return stat.isFile() || stat.isCharacterDevice()
}
