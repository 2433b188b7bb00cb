/** The header `Signature-Input` (RFC 9421 §4.1): what a signature covers, and its parameters. */
import { LRUCache } from 'lru-cache'
import {
  type BareItem,
  type InnerList,
  type Item,
  isInnerList,
  type Parameters,
  parseList,
  serializeParameters,
} from 'structured-headers'
import type { KeyAlgorithm } from '../clients/json-web-key.ts'
import { problems } from '../http/problems.ts'
import { ALGORITHMS } from './algorithms.ts'

/** What one signature covers, and its parameters (RFC 9421 §2.3). */
export interface SignatureInput {
  label: string
  /** the names of the covered components, each once */
  components: string[]
  /** the components and parameters as in the signature base */
  serialized: string
  keyid: string
  /** undefined: that of the key */
  algorithm: KeyAlgorithm | undefined
  /** in seconds since 1970 */
  created: number
  /** in seconds since 1970; infinite if there is no such parameter */
  expires: number
}

/** A signature has some hundred bytes; more would be work for an unknown client. */
const MAX_SIGNATURE_INPUT_BYTES = 2_048

/** Names of header fields (RFC 9110 §5.1) in lower case, and of derived components. */
const COMPONENT_NAME = /^@?[a-z0-9!#$%&'*+.^_`|~-]+$/

/** At most 2 MB of headers. The signatures that one client makes in one second have the same one. */
const MAX_CACHED_INPUTS = 1_000

const cache = new LRUCache<string, SignatureInput>({ max: MAX_CACHED_INPUTS })

/**
 * Parses the value of the header. White space in it does not matter: what is signed is serialised anew
 * (RFC 9421 §3.2).
 *
 * @throws {Problem} `signature-invalid`, which names what is wrong
 */
export function parseSignatureInput(header: string): SignatureInput {
  const cached = cache.get(header)
  if (cached) return cached
  if (header.length > MAX_SIGNATURE_INPUT_BYTES) {
    throw problems.signatureInvalid(
      `Signature-Input must not be larger than ${MAX_SIGNATURE_INPUT_BYTES} bytes.`,
    )
  }
  const member = parseOnlyMember(header)
  if (member === undefined || !isInnerList(member.value)) {
    throw problems.signatureInvalid(
      'Signature-Input must have exactly one signature: label=("component" …);created=…;keyid="…".',
    )
  }
  const [items, parameters] = member.value
  const components = parseComponents(items)
  const names = components.map((name) => `"${name}"`).join(' ')
  const input = {
    label: member.label,
    components,
    serialized: `(${names})${serializeParameters(parameters)}`,
    ...parseParameters(parameters),
  }
  cache.set(header, input)
  return input
}

/** Begins a member of a dictionary (RFC 9651 §3.2) that is an inner list or a byte sequence. */
const MEMBER_NAME = /^([a-z*][a-z0-9_.*-]*)=(?=[(:])/

/**
 * Parses a dictionary of one member. (A parser of dictionaries takes the last of several members with one name.)
 *
 * @returns undefined if it is malformed or has another number of members
 */
export function parseOnlyMember(
  header: string,
): { label: string; value: InnerList | Item } | undefined {
  const [name, label] = MEMBER_NAME.exec(header) ?? []
  if (name === undefined || label === undefined) return undefined
  try {
    const [value, ...more] = parseList(header.slice(name.length))
    return value === undefined || more.length > 0 ? undefined : { label, value }
  } catch {
    return undefined
  }
}

/** @throws {Problem} unless each is a name without parameters, and no name is there twice */
function parseComponents(items: Item[]): string[] {
  const names: string[] = []
  for (const [name, parameters] of items) {
    if (typeof name !== 'string' || !COMPONENT_NAME.test(name)) {
      throw invalid(
        `the component ${describe(name)} must be a name in lower case, in double quotes`,
      )
    }
    const [parameter] = parameters.keys()
    if (parameter !== undefined) {
      throw invalid(`the component "${name}" must not have a parameter (;${parameter})`)
    }
    if (names.includes(name)) throw invalid(`the component "${name}" occurs twice`)
    names.push(name)
  }
  return names
}

const describe = (name: BareItem) => (typeof name === 'string' ? JSON.stringify(name) : `${name}`)

/** @throws {Problem} */
function parseParameters(parameters: Parameters) {
  const created = parameters.get('created')
  if (!isInteger(created)) {
    throw invalid('the parameter created must be the time in whole seconds since 1970')
  }
  const expires = parameters.get('expires') ?? Number.POSITIVE_INFINITY
  if (!isInteger(expires) && expires !== Number.POSITIVE_INFINITY) {
    throw invalid('the parameter expires must be a time in whole seconds since 1970, or missing')
  }
  const keyid = parameters.get('keyid')
  if (typeof keyid !== 'string') throw invalid('the parameter keyid must be a string')
  const algorithm = parameters.get('alg')
  if (algorithm !== undefined && !isAlgorithm(algorithm)) {
    throw invalid(`the parameter alg must be ${Object.keys(ALGORITHMS).join(', ')}, or missing`)
  }
  return { created, expires: expires as number, keyid, algorithm }
}

const isInteger = (value: BareItem | undefined): value is number =>
  typeof value === 'number' && Number.isInteger(value)

const isAlgorithm = (value: BareItem): value is KeyAlgorithm =>
  typeof value === 'string' && Object.hasOwn(ALGORITHMS, value)

const invalid = (rule: string) => problems.signatureInvalid(`Signature-Input: ${rule}.`)
