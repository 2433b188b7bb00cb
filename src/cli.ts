#!/usr/bin/env node
import { run } from './client/command.ts'

process.exitCode = await run(process.argv.slice(2))
