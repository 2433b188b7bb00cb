/** Kills processes and removes folders when this process exits, whatever the reason is. */
import type { ChildProcess } from 'node:child_process'
import { existsSync, realpathSync, rmSync } from 'node:fs'

const pids = new Set<number>()
const folders: string[] = []

process.on('exit', () => {
  for (const pid of pids) sendSignal(pid, 'SIGKILL')
  for (const folder of folders.reverse()) {
    if (!existsSync(folder)) continue
    // The children of a killed Postgres end within moments, and may still create files.
    rmSync(realpathSync(folder), { recursive: true, maxRetries: 5 })
  }
})

export function killAtExit(pid: number): void {
  pids.add(pid)
}

/** Call this once the process is gone: its id may become that of another one. */
export function cancelKillAtExit(pid: number): void {
  pids.delete(pid)
}

export function killChildAtExit(child: ChildProcess): void {
  const { pid } = child
  if (pid === undefined) return // it could not be started
  killAtExit(pid)
  child.once('exit', () => cancelKillAtExit(pid))
}

/** @param folder or a symbolic link to it */
export function removeAtExit(folder: string): void {
  folders.push(folder)
}

/** Sends a signal to a process. @returns whether the process exists */
export function sendSignal(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
    return false
  }
}
