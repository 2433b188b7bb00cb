/** Refusals as problem documents (RFC 9457). */

/** One broken rule of the request: the member that breaks it and the rule. */
export interface FieldError {
  field: string
  message: string
}

/** The body of an error response, `application/problem+json` (RFC 9457 §3). */
export interface ProblemDocument {
  type: string
  title: string
  status: number
  detail: string
  code: string
  errors?: FieldError[]
  changed?: string[]
}

/** What all problems of one code have in common. */
export interface ProblemType {
  status: number
  title: string
}

export interface ProblemOptions {
  /** sent with the response */
  headers?: Record<string, string>
  /** one entry for each broken field */
  errors?: FieldError[]
  /** the members of the body that differ from those of the first request with the key */
  changed?: string[]
}

/** The `Content-Type` of a problem document (RFC 9457 §3). */
export const PROBLEM_MEDIA_TYPE = 'application/problem+json; charset=utf-8'

/**
 * A refusal, thrown by a hook or a handler and sent by an error handler. It is an `Error` without a
 * stack: a refusal is not a fault, and collecting a stack takes as long as the response itself.
 */
export class Problem implements Error {
  readonly name = 'Problem'
  readonly message: string
  readonly code: string
  readonly title: string
  readonly statusCode: number
  readonly headers: Record<string, string>
  readonly errors: FieldError[] | undefined
  readonly changed: string[] | undefined

  /** @param detail names the header or field and the rule that it breaks */
  constructor(
    code: string,
    { status, title }: ProblemType,
    detail: string,
    { headers = {}, errors, changed }: ProblemOptions = {},
  ) {
    this.message = detail
    this.code = code
    this.title = title
    this.statusCode = status
    this.headers = headers
    this.errors = errors
    this.changed = changed
  }

  /**
   * Returns the document that the client reads.
   *
   * @param baseUrl the `type` is this with the code appended; without it, `about:blank`
   */
  toDocument(baseUrl?: string): ProblemDocument {
    return {
      type: baseUrl === undefined ? 'about:blank' : baseUrl + this.code,
      title: this.title,
      status: this.statusCode,
      detail: this.message,
      code: this.code,
      ...(this.errors && { errors: this.errors }),
      ...(this.changed && { changed: this.changed }),
    }
  }
}

// The constructor of `Error` would collect a stack; the prototype makes it one all the same.
Object.setPrototypeOf(Problem.prototype, Error.prototype)
