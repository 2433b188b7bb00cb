/** `npm run db:migrate`: the command `order-once migrate`, without a build. */
import { runCommand } from '../src/commands.ts'

process.exitCode = await runCommand(['migrate', ...process.argv.slice(2)])
