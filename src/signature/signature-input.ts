/** The header `Signature-Input` (RFC 9421 §4.1): what a signature covers, and its parameters. */
import { LRUCache } from 'lru-cache'
import {
  type BareItem,
  type Item,
  isInnerList,
  type Parameters,
  parseItem,
  parseList,
  serializeParameters,
} from 'structured-headers'
import type { KeyAlgorithm } from '../clients/json-web-key.ts'
import { SIGNATURE_ALGORITHMS } from '../clients/signature-algorithms.ts'
import { problems } from '../http/problems.ts'

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

/** The covered components, and how the signature base lists them. */
type ComponentList = Pick<SignatureInput, 'components' | 'serialized'>

/** A signature has some hundred bytes; more would be work for an unknown client. */
const MAX_SIGNATURE_INPUT_BYTES = 2_048

/** Names of header fields (RFC 9110 §5.1) in lower case, and of derived components. */
const COMPONENT_NAME = /^@?[a-z0-9!#$%&'*+.^_`|~-]+$/

/**
 * At most 2 MB of texts each. The signatures of one client in one second have the same header, and in all
 * seconds the same components: they are parsed once.
 */
const CACHE = { max: 1_000 }
const inputs = new LRUCache<string, SignatureInput>(CACHE)
const componentLists = new LRUCache<string, ComponentList>(CACHE)

/**
 * Parses the value of the header. White space in it does not matter: what is signed is serialised again
 * (RFC 9421 §3.2).
 *
 * @throws {Problem} `signature-invalid`, which names what is wrong
 */
export function parseSignatureInput(header: string): SignatureInput {
  const known = inputs.get(header)
  if (known) return known
  if (header.length > MAX_SIGNATURE_INPUT_BYTES) {
    throw problems.signatureInvalid(
      `Signature-Input must not be larger than ${MAX_SIGNATURE_INPUT_BYTES} bytes.`,
    )
  }
  const [, label = '', list = '', rest = ''] = ONLY_MEMBER.exec(header) ?? []
  const { components, serialized } = componentLists.get(list) ?? parseComponents(list)
  // A list and an item have the same syntax of parameters: `?1` is an item without a meaning.
  const [, parameters] = parse(() => parseItem(`?1${rest}`))
  const [, decimal] = DECIMAL_TIME.exec(rest.replace(STRING, '')) ?? []
  if (decimal) throw invalid(`the parameter ${decimal} must have no decimal point`)
  const input = {
    label,
    components,
    serialized: serialized + serializeParameters(parameters),
    ...parseParameters(parameters),
  }
  inputs.set(header, input)
  return input
}

/** A dictionary (RFC 9651 §3.2) of one member: its name, its list of strings, and the parameters. */
const ONLY_MEMBER = /^([a-z*][a-z0-9_.*-]*)=(\((?:[^"()]|"[^"\\]*")*\))(.*)$/s

/** The library reads 1.0 as the integer 1, which has another signature base. */
const DECIMAL_TIME = /; *(created|expires)=-?\d+\./
const STRING = /"(?:[^"\\]|\\.)*"/g

/** @throws {Error} unless the text is one inner list */
function parseOnlyList(text: string): Item[] {
  const [list] = parseList(text)
  if (list !== undefined && isInnerList(list)) return list[0]
  throw new Error('not a list')
}

/** @throws {Problem} if the header is malformed, or has another number of members */
function parse<T>(parser: () => T): T {
  try {
    return parser()
  } catch {
    throw problems.signatureInvalid(
      'Signature-Input must have exactly one signature: label=("component" …);created=…;keyid="…".',
    )
  }
}

/** @throws {Problem} unless each is a name without parameters, and no name is there twice */
function parseComponents(list: string): ComponentList {
  const components: string[] = []
  for (const [name, parameters] of parse(() => parseOnlyList(list))) {
    if (typeof name !== 'string' || !COMPONENT_NAME.test(name)) {
      throw invalid(
        `the component ${describe(name)} must be a name in lower case, in double quotes`,
      )
    }
    const [parameter] = parameters.keys()
    if (parameter !== undefined) {
      throw invalid(`the component "${name}" must not have a parameter (;${parameter})`)
    }
    if (components.includes(name)) throw invalid(`the component "${name}" occurs twice`)
    components.push(name)
  }
  const serialized = `(${components.map((name) => `"${name}"`).join(' ')})`
  componentLists.set(list, { components, serialized })
  return { components, serialized }
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
    throw invalid(
      `the parameter alg must be ${Object.keys(SIGNATURE_ALGORITHMS).join(', ')}, or missing`,
    )
  }
  return { created, expires: expires as number, keyid, algorithm }
}

const isInteger = (value: BareItem | undefined): value is number =>
  typeof value === 'number' && Number.isInteger(value)

const isAlgorithm = (value: BareItem): value is KeyAlgorithm =>
  typeof value === 'string' && Object.hasOwn(SIGNATURE_ALGORITHMS, value)

const invalid = (rule: string) => problems.signatureInvalid(`Signature-Input: ${rule}.`)
