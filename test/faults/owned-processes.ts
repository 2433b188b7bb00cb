/** The processes that must not outlive this one, whatever happens to it. */
const owned = new Set<number>()

process.on('exit', () => {
  for (const pid of owned) signal(pid, 'SIGKILL')
})

/** Has the process killed when this one exits. */
export function own(pid: number): void {
  owned.add(pid)
}

/** The process is gone: its id may become another's. */
export function disown(pid: number): void {
  owned.delete(pid)
}

/** Sends a signal to a process that may be gone already. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}
