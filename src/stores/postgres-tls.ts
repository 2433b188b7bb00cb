/** TLS to Postgres: `sslmode` and `sslrootcert`, as libpq documents them. */
import { X509Certificate } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import {
  type ConnectionOptions,
  checkServerIdentity,
  createSecureContext,
  type SecureContext,
} from 'node:tls'
import { getErrorCode } from '../error-code.ts'
import { requireRegularFile } from '../regular-file.ts'
import { StartError } from '../start-error.ts'

/** The parameters of `DATABASE_URL` that `parseTls` reads. */
export const TLS_PARAMETERS = ['ssl', 'sslmode', 'sslrootcert', 'sslnegotiation']

const MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const

/** How connections are encrypted, and what is checked of the server's certificate. */
export interface Tls {
  mode: (typeof MODES)[number]
  /** trusts the file of `sslrootcert`; undefined: the authorities that Node.js trusts */
  context: SecureContext | undefined
  /** whether TLS starts at once, without a request to the server (Postgres 17) */
  isDirect: boolean
}

/**
 * Reads the TLS parameters of a URL. Without any, the mode is `prefer`: TLS if the server offers it,
 * unverified.
 *
 * @throws {StartError} if they contradict each other, or the file of `sslrootcert` cannot be used
 */
export function parseTls(parameters: URLSearchParams): Tls {
  const mode = parseMode(parameters)
  const isVerifiable = mode === 'require' || mode === 'verify-ca' || mode === 'verify-full'
  const root = parameters.get('sslrootcert')
  const isFile = root !== null && root !== 'system'
  if (root === 'system' && mode !== 'verify-full') {
    throw broken('sslrootcert=system needs sslmode=verify-full')
  }
  if (isFile && !isVerifiable) {
    throw broken('sslrootcert needs sslmode=verify-full (or require, or verify-ca)')
  }
  if (mode === 'verify-ca' && !isFile) {
    // Anyone can get a certificate from a public authority.
    throw broken('sslmode=verify-ca needs sslrootcert=<file>')
  }
  const negotiation = parameters.get('sslnegotiation') ?? 'postgres'
  if (negotiation !== 'postgres' && negotiation !== 'direct') {
    throw broken('sslnegotiation must be postgres or direct')
  }
  if (negotiation === 'direct' && !isVerifiable) {
    throw broken('sslnegotiation=direct needs sslmode=require, verify-ca or verify-full')
  }
  return {
    mode,
    context: isFile ? createSecureContext({ ca: readCertificates(root) }) : undefined,
    isDirect: negotiation === 'direct',
  }
}

/** The driver's option `ssl` for one host. */
export function toTlsOptions(
  { mode, context }: Tls,
  host: string,
): false | 'prefer' | ConnectionOptions {
  if (mode === 'disable') return false
  // The driver cannot try without TLS first (`allow`): with TLS it connects to the same servers.
  if (mode === 'allow' || mode === 'prefer') return 'prefer'
  if (mode === 'require' && context === undefined) return { rejectUnauthorized: false }
  return {
    rejectUnauthorized: true,
    ...(context && { secureContext: context }),
    // TLS has no server name for an IP address, and Node.js then checks the name `localhost`.
    checkServerIdentity: (_name, certificate) =>
      mode === 'verify-full' ? checkServerIdentity(host, certificate) : undefined,
  }
}

function parseMode(parameters: URLSearchParams): Tls['mode'] {
  const ssl = parameters.get('ssl')
  // As libpq: the form of JDBC.
  if (ssl !== null && ssl !== 'true') {
    throw broken('ssl must be true; or use sslmode')
  }
  const byDefault = ssl === 'true' ? 'require' : 'prefer'
  const isSystem = parameters.get('sslrootcert') === 'system'
  const given = parameters.get('sslmode') ?? (isSystem ? 'verify-full' : byDefault)
  const mode = MODES.find((mode) => mode === given)
  if (mode === undefined) {
    throw broken(`sslmode must be ${MODES.slice(0, -1).join(', ')} or ${MODES.at(-1)}`)
  }
  return mode
}

function readCertificates(path: string): string {
  let text: string
  try {
    requireRegularFile(statSync(path), `DATABASE_URL: the file ${path} of sslrootcert`)
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if (error instanceof StartError) throw error
    throw broken(`the file ${path} of sslrootcert cannot be read (${getErrorCode(error)})`)
  }
  try {
    new X509Certificate(text) // throws without one; `createSecureContext` would accept the text
  } catch {
    throw broken(`the file ${path} of sslrootcert has no PEM certificate`)
  }
  return text
}

const broken = (rule: string) => new StartError(`DATABASE_URL: ${rule}`)
