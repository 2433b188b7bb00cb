/** `npm run cleanup`: the command `order-once cleanup`, without a build. */
import { runCommand } from '../src/commands.ts'

process.exitCode = await runCommand(['cleanup', ...process.argv.slice(2)])
