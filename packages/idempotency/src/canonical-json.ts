/** Writes parsed bodies in a canonical form: RFC 8785, and forms of its own for what JSON does not have. */

/** No client nests data so deep; a recursion that follows a hostile body would exhaust the stack. */
export const MAX_DEPTH = 1_000

/** A value that a client has sent has no canonical form. */
export class NotCanonicalError extends Error {
  override name = 'NotCanonicalError'
}

/** A value may hide data that its members do not show, so that two values would look the same. */
export class OpaqueValueError extends Error {
  override name = 'OpaqueValueError'
}

/**
 * Writes a value so that equal data give equal texts and different data different ones. JSON data are
 * written as RFC 8785 wants them. Bytes and BigInts have forms that no JSON text has; `toJSON` is called
 * where an object has it. As in `JSON.stringify`, a member that is `undefined` is absent.
 *
 * @throws {NotCanonicalError} for a number that JSON does not have, and beyond `MAX_DEPTH` levels
 * @throws {OpaqueValueError} for functions, symbols, instances of classes without `toJSON`, circular values
 */
export function canonicalize(value: unknown): string {
  return write(value, [])
}

/** @param ancestors the objects that contain the value */
function write(value: unknown, ancestors: object[]): string {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return JSON.stringify(value)
    case 'number':
      if (Number.isFinite(value)) return JSON.stringify(value)
      throw new NotCanonicalError('JSON has no infinite number')
    case 'bigint':
      return `${value}n`
    case 'object':
      return value === null ? 'null' : writeObject(value, ancestors)
    default:
      throw new OpaqueValueError(
        `a value of type ${typeof value} cannot be distinguished from another`,
      )
  }
}

function writeObject(object: object, ancestors: object[]): string {
  if (ArrayBuffer.isView(object)) return writeBytes(object)
  if (ancestors.length >= MAX_DEPTH) throw createDepthError(ancestors)
  ancestors.push(object)
  let text: string
  if (Array.isArray(object)) text = writeArray(object, ancestors)
  else if ('toJSON' in object && typeof object.toJSON === 'function') {
    text = write(object.toJSON(), ancestors)
  } else if (isPlain(object)) text = writeMembers(object, ancestors)
  else {
    throw new OpaqueValueError(
      `an instance of ${object.constructor?.name} cannot be distinguished from another`,
    )
  }
  ancestors.pop()
  return text
}

function writeArray(array: unknown[], ancestors: object[]): string {
  let text = ''
  for (const value of array) text += `${text && ','}${write(value ?? null, ancestors)}`
  return `[${text}]`
}

function writeMembers(object: Record<string, unknown>, ancestors: object[]): string {
  let text = ''
  for (const name of Object.keys(object).sort()) {
    const value = object[name]
    if (value === undefined) continue
    text += `${text && ','}${JSON.stringify(name)}:${write(value, ancestors)}`
  }
  return `{${text}}`
}

function writeBytes({ buffer, byteOffset, byteLength }: ArrayBufferView): string {
  return `bytes:${Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength).toString('base64')}`
}

/**
 * Whether the members of the object are all of its data. This is true of object literals, of any realm, and of
 * objects without a prototype. Parsers of queries and forms make objects whose prototype has no prototype itself.
 */
function isPlain(object: object): object is Record<string, unknown> {
  const prototype: unknown = Object.getPrototypeOf(object)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

function createDepthError(ancestors: object[]): Error {
  const isCircular = new Set(ancestors).size < ancestors.length
  return isCircular
    ? new OpaqueValueError('a circular value has no end')
    : new NotCanonicalError(`a value has more than ${MAX_DEPTH} levels`)
}
