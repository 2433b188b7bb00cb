#!/usr/bin/env node
/** The command `order-once`: runs its subcommand `order`. */
import { runOrderCommand } from './client/command.ts'
import { HELP } from './client/flags.ts'

const [subcommand, ...args] = process.argv.slice(2)
if (subcommand === 'order') process.exitCode = await runOrderCommand(args)
else if (subcommand === '--help' || subcommand === '-h') console.log(HELP)
else {
  const message = `order-once: unknown subcommand "${subcommand}"; see order-once --help`
  console.error(subcommand === undefined ? HELP : message)
  process.exitCode = 2
}
