import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createTemporaryFolder, runBinary } from '../support/process.ts'

interface Case {
  name: string
  env?: Record<string, string>
  /** the content of `.env`; `folder`, `pipe`: it is one */
  file?: string | Buffer | 'folder' | 'pipe'
  line: string
}

const CANNOT_START = 'order-once cannot start: '
const ENDS = 'HMAC_SECRET: a secret must not begin or end with white space'
const WHITE_SPACE = 'it has white space: remove it, or write %20 for a blank'
const PERCENT = 'the password has a % that is not percent-encoded: write %25'

/** Settings that were damaged before the service read them, as users reported them. */
const CASES: Case[] = [
  {
    name: 'a .env in UTF-16',
    file: Buffer.from('\uFEFFHMAC_SECRET=a\n', 'utf16le'),
    line: '.env is not UTF-8: save it as UTF-8',
  },
  {
    name: 'a .env with a colon',
    file: 'PORT=8080\nHMAC_SECRET: a\n',
    line: '.env, line 2: it must be NAME=value',
  },
  {
    name: 'a .env with an open quote',
    file: 'HMAC_SECRET="a\n',
    line: '.env, line 1: a quote is not closed, or text follows it',
  },
  {
    name: 'a .env with # in a value',
    file: 'HMAC_SECRET=a#b\n',
    line: '.env, line 1: a value with # must be in quotes',
  },
  {
    name: 'a .env that is a folder',
    file: 'folder',
    line: '.env is not a regular file',
  },
  { name: 'a .env that is a named pipe', file: 'pipe', line: '.env is not a regular file' },
  {
    name: 'a .env with a secret that is not UTF-8',
    file: Buffer.from('HMAC_SECRET=caf\xe9\n', 'latin1'),
    line: '.env is not UTF-8: save it as UTF-8',
  },
  {
    name: 'an empty setting that has a default',
    file: 'HMAC_SECRET=\n',
    line: 'HMAC_SECRET must be a secret shared with the clients, not empty, or several, separated by commas',
  },
  { name: 'a secret with a line break', env: { HMAC_SECRET: 'a\n' }, line: ENDS },
  { name: 'a secret after a blank', env: { HMAC_SECRET: 'a, b' }, line: ENDS },
  { name: 'a secret of blanks', env: { HMAC_SECRET: ' '.repeat(40) }, line: ENDS },
  {
    name: 'a secret in quotes',
    env: { HMAC_SECRET: '"a"' },
    line: 'HMAC_SECRET: a secret must not be in quotes',
  },
  {
    name: 'several secrets in quotes', // as `docker run --env-file` passes them
    env: { HMAC_SECRET: '"a,b"' },
    line: 'HMAC_SECRET must not be in quotes',
  },
  {
    name: 'a secret in the quotes of a word processor',
    env: { HMAC_SECRET: '\u201Ca\u201D' },
    line: 'HMAC_SECRET: a secret must not be in quotes',
  },
  ...['HOST', 'DATA_DIR', 'CLIENTS_FILE', 'OTEL_SERVICE_NAME'].map((name) => ({
    name: `a ${name} with a line break`,
    env: { [name]: 'a\n' },
    line: `${name} must not begin or end with white space`,
  })),
  {
    name: 'a METRICS_HOST with a control character',
    env: { METRICS_PORT: '0', METRICS_HOST: 'a\nb' },
    line: 'METRICS_HOST must not have control or invisible characters',
  },
  {
    name: 'a PUBLIC_URL with a line break',
    env: { PUBLIC_URL: 'https://a.example\n' },
    line: 'PUBLIC_URL must not begin or end with white space',
  },
  {
    name: 'a secret with a control character',
    env: { HMAC_SECRET: 'a\tb' },
    line: 'HMAC_SECRET: a secret must not have control or invisible characters',
  },
  {
    name: 'a secret that is not UTF-8', // Node.js passes U+FFFD for each byte that it cannot decode
    env: { HMAC_SECRET: 'caf\uFFFD' },
    line: 'HMAC_SECRET: a secret must be UTF-8',
  },
  {
    name: 'a secret with an invisible character',
    env: { HMAC_SECRET: '\u200Ba' },
    line: 'HMAC_SECRET: a secret must not have control or invisible characters',
  },
  {
    name: 'a DATABASE_URL with a line break',
    env: { DATABASE_URL: 'postgres://u:p@h/db\n' },
    line: `DATABASE_URL: ${WHITE_SPACE}`,
  },
  {
    name: 'a DATABASE_URL with a raw %',
    env: { DATABASE_URL: 'postgres://u:p%@h/db' },
    line: `DATABASE_URL: ${PERCENT}`,
  },
  {
    name: 'a DATABASE_URL with a raw /',
    env: { DATABASE_URL: 'postgres://u:p/q@h/db' },
    line: 'DATABASE_URL: a / ? or @ of the user, password or database must be percent-encoded',
  },
  {
    name: 'a REDIS_URL with a line break',
    env: { REDIS_URL: 'redis://h\n' },
    line: `REDIS_URL: ${WHITE_SPACE}`,
  },
  {
    name: 'a REDIS_URL with a raw %',
    env: { REDIS_URL: 'redis://:p%@h' },
    line: `REDIS_URL: ${PERCENT}`,
  },
  {
    name: 'a REDIS_URL with a raw /',
    env: { REDIS_URL: 'redis://:p/q@h' },
    line: 'REDIS_URL: it must be redis://user:password@host:port/database; a / ? # or @ of the user or password must be percent-encoded',
  },
  {
    name: 'a DATABASE_URL with a control character',
    env: { DATABASE_URL: 'postgres://u:p\x01@h/db' },
    line: 'DATABASE_URL must not have control or invisible characters',
  },
  {
    name: 'a REDIS_URL with a port that is none',
    env: { REDIS_URL: 'redis+sentinel://s1,s2:x/m' },
    line: 'REDIS_URL: a port must be an integer from 1 to 65535',
  },
  {
    name: 'an infinite size',
    env: { MAX_BODY_BYTES: '1e309' },
    line: 'MAX_BODY_BYTES must be an integer from 1 to 1048576',
  },
  {
    name: 'a number in another form',
    env: { WORKERS: '0x10', OTEL_TRACES_SAMPLER_ARG: '1e0' },
    line: 'WORKERS must be auto, for one on each core, or an integer from 1 to 99; OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1',
  },
  {
    name: 'headers that are no pairs',
    env: { OTEL_EXPORTER_OTLP_HEADERS: 'token' },
    line: 'OTEL_EXPORTER_OTLP_HEADERS must be name=value pairs, separated by commas',
  },
  {
    name: 'a METRICS_PORT that is PORT',
    env: { PORT: '8080', METRICS_PORT: '8080' },
    line: 'METRICS_PORT must be another port than PORT',
  },
  {
    name: 'a METRICS_HOST without METRICS_PORT',
    env: { METRICS_HOST: '127.0.0.1' },
    line: 'METRICS_HOST must not be set without METRICS_PORT',
  },
  ...['orders.example.com', 'https://a.example/', 'https://u@a.example', 'ftp://a.example'].map(
    (url) => ({
      name: `the PUBLIC_URL ${url}`,
      env: { PUBLIC_URL: url },
      line: 'PUBLIC_URL must be a URL without a path, such as https://orders.example.com',
    }),
  ),
  {
    name: 'a METRICS_PORT of Kubernetes',
    env: { METRICS_PORT: 'tcp://10.0.0.1:80' },
    line: 'METRICS_PORT must be an integer from 0 to 65535',
  },
  {
    name: 'an unknown NODE_ENV',
    env: { NODE_ENV: 'prod' },
    line: 'NODE_ENV must be development, test or production',
  },
  {
    name: 'a DATA_DIR that cannot be written',
    env: { STORES: 'embedded', DATA_DIR: '/dev/null/data' },
    line: "the embedded database in DATA_DIR /dev/null/data did not start: ENOTDIR: not a directory, mkdir '/dev/null/data'",
  },
  {
    name: 'a DATA_DIR that is a file',
    env: { STORES: 'embedded', DATA_DIR: '.env' },
    file: 'PORT=0\n',
    line: 'DATA_DIR .env is not a folder',
  },
]

// Where Linux says that there is no such folder, and cannot have one.
const CASES_ON_LINUX: Case[] = [
  {
    name: 'a DATA_DIR in /proc',
    env: { STORES: 'embedded', DATA_DIR: '/proc/none/data' },
    line: "the embedded database in DATA_DIR /proc/none/data did not start: ENOENT: no such file or directory, mkdir '/proc/none'",
  },
]

test.each(process.platform === 'linux' ? [...CASES, ...CASES_ON_LINUX] : CASES)(
  '$name stops the start with one line',
  async ({ env, file, line }) => {
    const folder = await createTemporaryFolder()
    const path = join(folder, '.env')
    if (file === 'folder') mkdirSync(path)
    else if (file === 'pipe') execFileSync('mkfifo', [path])
    else if (file !== undefined) writeFileSync(path, file)
    expect(await runBinary(['serve'], env, folder)).toEqual({
      code: 1,
      stdout: '',
      stderr: `${CANNOT_START}${line}\n`,
    })
  },
)
