/** The Chromium of this machine. */
import { existsSync } from 'node:fs'

/** Undefined without a Chromium: a message says so, and the tests in a browser are left out. */
export const chromiumPath = [
  process.env.CHROMIUM_PATH ?? '',
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
].find((path) => existsSync(path))
