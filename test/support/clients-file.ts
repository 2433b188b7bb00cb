/** Files of clients for tests. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { SigningKey } from './message-signature.ts'
import { createTemporaryFolder } from './process.ts'

export interface TestClient {
  id: string
  rate_limit_max?: number
  keys: SigningKey[]
}

export const formatClients = (clients: TestClient[]): string =>
  JSON.stringify({
    clients: clients.map(({ keys, ...client }) => ({
      ...client,
      keys: keys.map(({ jwk }) => jwk),
    })),
  })

/** Writes a file for one test. @returns its path */
export async function writeClientsFile(clients: TestClient[]): Promise<string> {
  const path = join(await createTemporaryFolder(), 'clients.json')
  await writeFile(path, formatClients(clients))
  return path
}
