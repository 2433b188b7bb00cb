import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const resolvePath = (path: string) => fileURLToPath(new URL(path, import.meta.url))

export default defineConfig({
  resolve: {
    // The sources, so that no test runs an old build of the package.
    alias: [
      {
        find: '@order-once/idempotency/batching',
        replacement: resolvePath('packages/idempotency/src/batching.ts'),
      },
      {
        find: '@order-once/idempotency',
        replacement: resolvePath('packages/idempotency/src/index.ts'),
      },
    ],
  },
  test: {
    include: ['test/**/*.test.ts', 'packages/*/test/**/*.test.ts'],
    globalSetup: 'test/support/global-setup.ts',
    // Most of a test's time is spent on other processes.
    maxWorkers: 3,
    // A test starts real servers and child processes, some of them several times. On two cores that have six
    // times as much to do, some tests need 60 s. It limits broken tests, and measures no speed.
    testTimeout: 180_000,
    hookTimeout: 180_000,
  },
})
