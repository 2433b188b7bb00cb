/** Prometheus's own checks of metrics and alerts. */
import { spawnSync } from 'node:child_process'

/** Whether there is a promtool; without one, a message says so, and its checks are left out. */
export const hasPromtool = spawnSync('promtool', ['--version']).status === 0

/** Runs `promtool`. @returns its exit code and its output */
export function promtool(args: string[], input = ''): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('promtool', args, { input, encoding: 'utf8' })
  return { status, output: stdout + stderr }
}
