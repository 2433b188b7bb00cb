/** `npm run reconcile`: the command `order-once reconcile`, without a build. */
import { runCommand } from '../src/commands.ts'

process.exitCode = await runCommand(['reconcile', ...process.argv.slice(2)])
