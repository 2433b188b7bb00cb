import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: 'test/support/global-setup.ts',
    // Most of a test's time is spent on other processes.
    maxWorkers: 3,
    // A test starts real servers and child processes; a slow machine may need this long for one.
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
})
