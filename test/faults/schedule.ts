/** When which fault happens: planned from the seed, then run. */
import { setTimeout as sleep } from 'node:timers/promises'
import { FAULTS, type Fault, type Target } from './faults.ts'
import { createRandom, pickInteger, type Range, shuffle } from './random.ts'
import type { System } from './system.ts'

interface PlannedFault {
  fault: Fault
  /** without a fault of the same target, before this one */
  quietMs: number
  durationMs: number
  instance: number
  /** of the random choices of the fault itself */
  seed: number
}

/** A fault that happened; times on the clock of `performance.now`. */
export interface Occurrence {
  kind: string
  target: Target
  /** undefined: it concerns all instances */
  instance: number | undefined
  startedAt: number
  endedAt: number
  /** when its instance listened again; else as `endedAt` */
  restoredAt: number
  /** what it did: connections reset, replies dropped, … */
  effects: number
}

const TARGETS: readonly Target[] = ['postgres', 'redis', 'instance']

/** Enough to see the service recover. */
const QUIET_MS: Record<Target, Range> = {
  postgres: [1_500, 3_500],
  redis: [500, 2_500],
  instance: [1_500, 4_000],
}

/** Until the clients are at full speed. */
const WARM_UP_MS = 1_000

/** Plans the faults of one target, without an end. Every kind comes once before one comes again. */
export function* planFaults(target: Target, seed: number, instances: number) {
  const random = createRandom(seed)
  const faults = FAULTS.filter((fault) => fault.target === target)
  for (;;) {
    for (const fault of shuffle(random, faults)) {
      const planned: PlannedFault = {
        fault,
        quietMs: pickInteger(random, QUIET_MS[target]),
        durationMs: pickInteger(random, fault.durationMs),
        instance: fault.instance ?? pickInteger(random, [0, instances - 1]),
        seed: pickInteger(random, [0, 2 ** 32 - 1]),
      }
      yield planned
    }
  }
}

/**
 * Runs faults for `totalMs`: those of one target one after the other.
 *
 * @throws if the system cannot be restored, or when `stopped` is aborted
 */
export async function runFaults(
  system: System,
  { seed, totalMs, stopped }: { seed: number; totalMs: number; stopped: AbortSignal },
): Promise<Occurrence[]> {
  const endsAt = performance.now() + totalMs
  const occurrences: Occurrence[] = []
  const wait = (ms: number) => sleep(ms, undefined, { signal: stopped })

  async function runFault({ fault, durationMs, instance, seed }: PlannedFault): Promise<void> {
    const { kind, target } = fault
    const occurrence: Occurrence = {
      kind,
      target,
      instance: target === 'instance' ? instance : undefined,
      startedAt: performance.now(),
      endedAt: Number.POSITIVE_INFINITY,
      restoredAt: Number.POSITIVE_INFINITY,
      effects: 0,
    }
    occurrences.push(occurrence)
    await fault.run({
      system,
      random: createRandom(seed),
      instance,
      wait: () => wait(durationMs),
      countEffects: (count = 1) => {
        occurrence.effects += count
      },
    })
    occurrence.endedAt = performance.now()
    if (target === 'instance') await system.instances[instance]?.waitUntilListening(stopped)
    occurrence.restoredAt = performance.now()
  }

  async function runFaultsOf(target: Target): Promise<void> {
    await wait(WARM_UP_MS)
    // Each target has a sequence of its own, so that none depends on how fast the others are.
    const plan = planFaults(target, seed + TARGETS.indexOf(target), system.instances.length)
    for (const planned of plan) {
      if (performance.now() + planned.quietMs + planned.durationMs > endsAt) return
      await wait(planned.quietMs)
      await runFault(planned)
    }
  }

  await Promise.all(TARGETS.map(runFaultsOf))
  await wait(Math.max(0, endsAt - performance.now()))
  return occurrences.sort((a, b) => a.startedAt - b.startedAt)
}
