/** Finds members that occur twice in an object of a JSON text: `JSON.parse` keeps only the last of them. */

/** A brace, or a string, with the colon if it is the name of a member. */
const BRACE_OR_STRING = /[{}]|"[^"\\]*(?:\\.[^"\\]*)*"\s*:?/g

/**
 * Returns the names of the members that occur more than once in their object. RFC 8785 §3.1 requires I-JSON,
 * which forbids them (RFC 7493 §2.3). A name is the same with and without escapes.
 *
 * @param json well-formed
 * @param max how many to find
 */
export function findRepeatedMembers(json: string, max: number): string[] {
  const repeated = new Set<string>()
  const openObjects: Set<string>[] = []
  for (const token of json.match(BRACE_OR_STRING) ?? []) {
    if (token === '{') openObjects.push(new Set())
    else if (token === '}') openObjects.pop()
    else if (token.endsWith(':')) {
      const name = parseName(token)
      const names = openObjects.at(-1)
      if (names?.has(name)) repeated.add(name)
      names?.add(name)
      if (repeated.size === max) break
    }
  }
  return [...repeated]
}

/** Parses only names with escapes: `JSON.parse` is slow. */
function parseName(token: string): string {
  const end = token.lastIndexOf('"')
  return token.includes('\\') ? JSON.parse(token.slice(0, end + 1)) : token.slice(1, end)
}
