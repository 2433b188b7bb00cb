/** `npm run order -- …`: the command `order-once order …`, without a build. */
import { run } from '../src/client/command.ts'

process.exitCode = await run(['order', ...process.argv.slice(2)])
