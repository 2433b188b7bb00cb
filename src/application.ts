/** The name, version and description of the application, from its package.json. */
import { createRequire } from 'node:module'

export const APPLICATION = createRequire(import.meta.url)('../package.json') as {
  name: string
  version: string
  description: string
  license: string
}
