/** `npm run order -- …`: runs the command `order-once order …` without a build. */
import { runOrderCommand } from '../src/client/command.ts'

process.exitCode = await runOrderCommand(process.argv.slice(2))
