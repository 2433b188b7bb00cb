/** `npm run order`: the command `order-once order`, without a build. */
import { runCommand } from '../src/commands.ts'

process.exitCode = await runCommand(['order', ...process.argv.slice(2)])
