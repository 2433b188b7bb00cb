// Checks that the compiler can run. Its program is an optional package, one for each platform.
import { createRequire } from 'node:module'

const compiler = `@typescript/typescript-${process.platform}-${process.arch}`
try {
  const { resolve } = createRequire(import.meta.url)
  createRequire(resolve('typescript/package.json')).resolve(`${compiler}/package.json`)
} catch {
  console.error(
    `the compiler is not installed (${compiler}): run \`npm ci\`, without --omit=dev and --omit=optional`,
  )
  process.exitCode = 1
}
