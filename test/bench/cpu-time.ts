// Reads the CPU time of a process and its descendants from Linux's /proc.
import { readdirSync, readFileSync } from 'node:fs'

/** The kernel reports CPU time in hundredths of a second (USER_HZ). */
const TICK_US = 10_000

/** The CPU time in µs that a process and its descendants have used so far; NaN if not on Linux. */
export function readCpuTime(rootPid: number): number {
  if (process.platform !== 'linux') return Number.NaN
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap(readProcess)
  const tree = all.filter(({ pid }) => pid === rootPid)
  for (const { pid } of tree) tree.push(...all.filter(({ parent }) => parent === pid))
  return tree.reduce((sum, { cpuUs }) => sum + cpuUs, 0)
}

/** @returns nothing if the process has ended */
function readProcess(pid: string) {
  let stat: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return []
  }
  // The program's name comes first and may contain spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  // Its own user and system time, and those of its children that have ended.
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
  return [{ pid: Number(pid), parent: Number(fields[1]), cpuUs: ticks * TICK_US }]
}
