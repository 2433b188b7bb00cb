/** Reads `.env`. A file that is not understood is refused: a setting in it would silently be missing. */
import { readFileSync, statSync } from 'node:fs'
import { getErrorCode } from './error-code.ts'
import { requireRegularFile } from './regular-file.ts'
import { StartError } from './start-error.ts'

/** The rest of a line that is blank or a comment. */
const BLANK = /[ \t]*(?:#[^\n]*)?(?:\n|$)/y
/** The name of a setting, up to its value. */
const NAME = /[ \t]*(?:export[ \t]+)?([A-Za-z_][\w.-]*)[ \t]*=[ \t]*/y
/** A quoted value may have several lines. */
const QUOTED = /(?:"([^"]*)"|'([^']*)'|`([^`]*)`)[ \t]*(?:#[^\n]*)?(?:\n|$)/y
/** A comment follows a blank: a # without one is part of the value for some programs, not for others. */
const UNQUOTED = /(?!["'`])([^\n#]*[^\n# \t])?[ \t]*(?:(?<=[ \t])#[^\n]*)?(?:\n|$)/y

/**
 * Reads the settings of a file.
 *
 * @returns nothing if there is no such file
 * @throws {StartError} if it cannot be read, is not UTF-8, or a line is no setting; names the line
 */
export function readEnvFile(path: string): Record<string, string | undefined> {
  let bytes: Buffer
  try {
    requireRegularFile(statSync(path), path)
    bytes = readFileSync(path)
  } catch (error) {
    if (error instanceof StartError) throw error
    const code = getErrorCode(error)
    if (code === 'ENOENT') return {}
    throw new StartError(`${path} cannot be read: ${code}`)
  }
  return parse(path, decode(path, bytes))
}

function decode(path: string, bytes: Buffer): string {
  try {
    // It skips a byte order mark. NUL bytes show UTF-16 without one.
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    if (!text.includes('\0')) return text.replaceAll(/\r\n?/g, '\n')
  } catch {
    // Not UTF-8.
  }
  throw new StartError(`${path} is not UTF-8: save it as UTF-8`)
}

/** Parses the lines itself: `parseEnv` of Node.js takes a tab for a part of a name, and refuses nothing. */
function parse(path: string, text: string): Record<string, string> {
  const settings: Record<string, string> = {}
  let index = 0
  /** @returns the text that the pattern captures; undefined if it does not match */
  const read = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = index
    const match = pattern.exec(text)
    if (!match) return undefined
    index = pattern.lastIndex
    return match.slice(1).find((group) => group !== undefined) ?? ''
  }
  while (index < text.length) {
    if (read(BLANK) !== undefined) continue
    const start = index
    const refuse = (rule: string) => {
      const line = text.slice(0, start).split('\n').length
      return new StartError(`${path}, line ${line}: ${rule}`)
    }
    const name = read(NAME)
    if (name === undefined) throw refuse('it must be NAME=value')
    const value = read(UNQUOTED) ?? read(QUOTED)
    if (value === undefined) {
      const isQuoted = /["'`]/.test(text.charAt(index))
      const rule = isQuoted
        ? 'a quote is not closed, or text follows it'
        : 'a value with # must be in quotes'
      throw refuse(rule)
    }
    settings[name] = value
  }
  return settings
}
