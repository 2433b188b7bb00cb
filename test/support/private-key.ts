/** Files of private keys for tests. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { SigningKey } from './message-signature.ts'
import { createTemporaryFolder } from './process.ts'

/** Formats the private half as a JSON Web Key, as `order-once keygen` prints it. */
export const formatPrivateKey = ({ kid, secret }: SigningKey): string =>
  JSON.stringify({ kid, ...secret.export({ format: 'jwk' }) })

/** Writes the private half to a file for one test. @returns its path */
export async function writePrivateKey(key: SigningKey): Promise<string> {
  const path = join(await createTemporaryFolder(), 'client-key.json')
  await writeFile(path, formatPrivateKey(key))
  return path
}
