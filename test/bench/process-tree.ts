import { readdirSync, readFileSync } from 'node:fs'

/** The kernel counts CPU time for programs in hundredths of a second (USER_HZ). */
const TICK_MICROS = 10_000

const isMeasured = process.platform === 'linux'

interface Process {
  pid: number
  parent: number
  /** µs of CPU, of itself and of its children that have ended */
  cpu: number
  /** µs of CPU of its children that have ended */
  endedCpu: number
}

/** The CPU time that a process and all below it have used so far, in µs; null if not on Linux. */
export function cpuOfTree(root: number): number | null {
  return isMeasured ? tree(root).reduce((sum, { cpu }) => sum + cpu, 0) : null
}

/** The CPU time of this process's children that have ended, in µs; null if not on Linux. */
export function cpuOfEndedChildren(): number | null {
  return isMeasured ? (read(process.pid)?.endedCpu ?? 0) : null
}

/** The resident memory of a process and of each one below it, in bytes; none if not on Linux. */
export function memoryOfTree(root: number): number[] {
  if (!isMeasured) return []
  return tree(root).flatMap(({ pid }) => {
    const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readIfThere(`/proc/${pid}/status`))?.[1]
    return kilobytes === undefined ? [] : [Number(kilobytes) * 1024]
  })
}

function tree(root: number): Process[] {
  const all = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => read(Number(name)) ?? [])
  const found = all.filter(({ pid }) => pid === root)
  for (const { pid } of found) found.push(...all.filter(({ parent }) => parent === pid))
  return found
}

function read(pid: number): Process | undefined {
  const stat = readIfThere(`/proc/${pid}/stat`)
  if (stat === '') return undefined
  // The name before it may hold anything, even spaces and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const number = (index: number) => Number(fields[index])
  const endedCpu = (number(13) + number(14)) * TICK_MICROS
  return {
    pid,
    parent: number(1),
    cpu: (number(11) + number(12)) * TICK_MICROS + endedCpu,
    endedCpu,
  }
}

/** A process may end at any time. */
function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
