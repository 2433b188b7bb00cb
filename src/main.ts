#!/usr/bin/env node
/** The binary `order-once`. */
import { runCommand } from './commands.ts'

const exitCode = await runCommand(process.argv.slice(2))
// After a failed start, stores that do not respond may still keep the process alive.
if (exitCode === 0) process.exitCode = 0
else process.exit(exitCode)
