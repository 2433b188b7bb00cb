/** Child processes that end together with this process. */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'

const children = new Set<ChildProcess>()

process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
})
// vitest stops its workers with SIGTERM; when vitest itself is killed, they lose their channel to it. Other programs
// handle signals themselves: they also stop stores and remove files.
if (process.env.VITEST) {
  process.once('SIGTERM', () => process.exit(1))
  process.once('disconnect', () => process.exit(1))
}

/**
 * Starts a process that is killed when this one exits. A signal that this one does not handle ends it without that.
 */
export function spawnChild(command: string, args: string[], options: SpawnOptions): ChildProcess {
  const child = spawn(command, args, options)
  children.add(child)
  child.once('exit', () => children.delete(child))
  return child
}
