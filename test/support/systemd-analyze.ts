import { execFileSync } from 'node:child_process'

/** Whether `systemd-analyze` is on the PATH. */
export const hasSystemdAnalyze = isInstalled()

function isInstalled(): boolean {
  try {
    execFileSync('systemd-analyze', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
