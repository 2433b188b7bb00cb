/** `npm run keygen`: the command `order-once keygen`, without a build. */
import { runCommand } from '../src/commands.ts'

process.exitCode = await runCommand(['keygen', ...process.argv.slice(2)])
