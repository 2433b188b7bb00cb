import { execFileSync, spawnSync } from 'node:child_process'

/**
 * Whether Prometheus's own checks can be run; if not, one loud line says so, and in CI, where they must,
 * it is a failure.
 */
export const hasPromtool = findPromtool()

/** Runs `promtool`. @returns its exit code and all that it said */
export function promtool(args: string[], input = ''): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('promtool', args, { input, encoding: 'utf8' })
  return { status, output: stdout + stderr }
}

function findPromtool(): boolean {
  try {
    execFileSync('promtool', ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    const what = 'THE CHECKS OF METRICS AND ALERTS ARE LEFT OUT: no promtool on the PATH.'
    if (process.env.CI) throw new Error(what)
    console.error(`\n${what}\n`)
    return false
  }
}
