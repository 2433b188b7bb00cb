import { execFileSync } from 'node:child_process'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readEnvFile } from '../src/env-file.ts'
import { createTemporaryFolder } from './support/process.ts'

async function write(content: string | Buffer): Promise<string> {
  const path = join(await createTemporaryFolder(), '.env')
  writeFileSync(path, content)
  return path
}

describe('a settings file', () => {
  test.each([
    ['with a byte order mark', '\uFEFFHMAC_SECRET=a\nPORT=1\n'],
    ['with Windows line ends', 'HMAC_SECRET=a\r\nPORT=1\r\n'],
    [
      'with export, blanks, quotes and comments',
      '# c\n\nexport HMAC_SECRET = "a" # c\n  PORT=\'1\'\n',
    ],
    ['with tabs', '\n\t\n\texport\tHMAC_SECRET\t=\ta\t# c\n\tPORT\t=\t"1"\t# c\n'],
    ['with line ends of old Macs', 'HMAC_SECRET=a\rPORT=1\r'],
    ['with a setting that is there twice', 'PORT=2\nHMAC_SECRET=a\nPORT=1\n'],
    ['without a last line end', 'HMAC_SECRET=a\nPORT=1'],
  ])('is read %s', async (_name, content) => {
    expect(readEnvFile(await write(content))).toEqual({ HMAC_SECRET: 'a', PORT: '1' })
  })

  test('may have values of several lines, and quotes inside of a value', async () => {
    expect(readEnvFile(await write('A="1\n2"\nB=it\'s\nC=\n'))).toEqual({
      A: '1\n2',
      B: "it's",
      C: '',
    })
  })

  test('may have many lines', async () => {
    const path = await write(`${'A=1\n'.repeat(300_000)}B`)
    expect(() => readEnvFile(path)).toThrow(`${path}, line 300001: it must be NAME=value`)
  })

  test('may have values with many blanks', async () => {
    const blanks = ' '.repeat(300_000)
    const path = await write(`A=${blanks}1${blanks}2${blanks}# c\n`)
    expect(readEnvFile(path)).toEqual({ A: `1${blanks}2` })
  })

  test('may be absent', async () => {
    expect(readEnvFile(join(await createTemporaryFolder(), '.env'))).toEqual({})
  })

  test.each<[string, string | Buffer, string]>([
    [
      'UTF-16 with a byte order mark',
      Buffer.from('\uFEFFPORT=1\n', 'utf16le'),
      ' is not UTF-8: save it as UTF-8',
    ],
    ['UTF-16 without one', Buffer.from('PORT=1\n', 'utf16le'), ' is not UTF-8: save it as UTF-8'],
    ['Latin-1', Buffer.from('A=caf\xe9\n', 'latin1'), ' is not UTF-8: save it as UTF-8'],
    ['a line with a colon', 'PORT=1\nHMAC_SECRET: a\n', ', line 2: it must be NAME=value'],
    ['a line of text', '# c\n\nhello\n', ', line 3: it must be NAME=value'],
    ['a name with a blank', 'HMAC SECRET=a\n', ', line 1: it must be NAME=value'],
    [
      'an open quote',
      'PORT=1\nHMAC_SECRET="a\nB=c\n',
      ', line 2: a quote is not closed, or text follows it',
    ],
    ['a byte order mark inside', 'A=1\n\uFEFFB=2\n', ', line 2: it must be NAME=value'],
    [
      'a quote of its own kind inside of quotes',
      'A="a"b\nB="c"\n',
      ', line 1: a quote is not closed, or text follows it',
    ],
    ['an escaped quote', 'A="a\\"b"\n', ', line 1: a quote is not closed, or text follows it'],
    ['a value with #', 'A=b#c\n', ', line 1: a value with # must be in quotes'],
    [
      'text after a quote',
      'HMAC_SECRET="a"b\n',
      ', line 1: a quote is not closed, or text follows it',
    ],
  ])('is refused if it has %s', async (_name, content, message) => {
    const path = await write(content)
    expect(() => readEnvFile(path)).toThrow(
      expect.objectContaining({ name: 'StartError', message: path + message }),
    )
  })

  test.each([
    ['a folder', (path: string) => mkdirSync(path)],
    ['a named pipe', (path: string) => execFileSync('mkfifo', [path])],
    ['a device', (path: string) => symlinkSync('/dev/null', path)],
  ])('is refused if it is %s', async (_name, create) => {
    const path = join(await createTemporaryFolder(), '.env')
    create(path)
    expect(() => readEnvFile(path)).toThrow(`${path} is not a regular file`)
  })
})
