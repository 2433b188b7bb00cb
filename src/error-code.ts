/** The code of an error. */

/** The code of an error of Postgres (SQLSTATE), of a driver or of Node.js; '' if there is none. */
export function getErrorCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
    ? error.code
    : ''
}
