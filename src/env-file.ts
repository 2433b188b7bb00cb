/** Reads `.env`. A file that is not understood is refused: a setting in it would silently be missing. */
import { readFileSync } from 'node:fs'
import { parseEnv } from 'node:util'
import { getErrorCode } from './error-code.ts'
import { StartError } from './start-error.ts'

/** The rest of a line that is blank or a comment. */
const BLANK = /[^\S\n]*(?:#[^\n]*)?(?:\n|$)/y
/** The name of a setting, up to its value. */
const NAME = /[^\S\n]*(?:export[^\S\n]+)?[A-Za-z_][\w.-]*[^\S\n]*=[^\S\n]*/y
/** A quoted value may have several lines. */
const QUOTED = /(["'`])[\s\S]*?\1[^\S\n]*(?:#[^\n]*)?(?:\n|$)/y
/** A comment follows a blank: `parseEnv` would cut off a value at any #. */
const UNQUOTED = /(?!["'`])[^\n#]*(?:(?<=\s)#[^\n]*)?(?:\n|$)/y

/**
 * Reads the settings of a file.
 *
 * @returns nothing if there is no such file
 * @throws {StartError} if it cannot be read, is not UTF-8, or a line is no setting; names the line
 */
export function readEnvFile(path: string): Record<string, string | undefined> {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    const code = getErrorCode(error)
    if (code === 'ENOENT') return {}
    throw new StartError(`${path} cannot be read: ${code === 'EISDIR' ? 'it is a folder' : code}`)
  }
  const text = decode(path, bytes)
  checkLines(path, text)
  return parseEnv(text)
}

function decode(path: string, bytes: Buffer): string {
  try {
    // It skips a byte order mark. NUL bytes show UTF-16 without one.
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    if (!text.includes('\0')) return text.replaceAll('\r\n', '\n')
  } catch {
    // Not UTF-8.
  }
  throw new StartError(`${path} is not UTF-8: save it as UTF-8`)
}

function checkLines(path: string, text: string): void {
  let index = 0
  const skip = (pattern: RegExp): boolean => {
    pattern.lastIndex = index
    const isFound = pattern.test(text)
    if (isFound) index = pattern.lastIndex
    return isFound
  }
  while (index < text.length) {
    if (skip(BLANK)) continue
    const line = text.slice(0, index).split('\n').length
    if (!skip(NAME)) throw new StartError(`${path}, line ${line}: it must be NAME=value`)
    if (!skip(UNQUOTED) && !skip(QUOTED)) {
      const isQuoted = /["'`]/.test(text.charAt(index))
      const rule = isQuoted
        ? 'a quote is not closed, or text follows it'
        : 'a value with # must be in quotes'
      throw new StartError(`${path}, line ${line}: ${rule}`)
    }
  }
}
