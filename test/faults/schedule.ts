import { setTimeout as sleep } from 'node:timers/promises'
import { FAULTS, type Fault, type Target } from './faults.ts'
import { createRandom, integerBetween, shuffled } from './random.ts'
import type { World } from './world.ts'

/** One fault that is to come; times in ms. */
export interface Appointment {
  fault: Fault
  /** how long its target is left alone before it */
  quietMs: number
  lastsMs: number
  instance: number
  /** of the numbers that the fault itself draws */
  seed: number
}

/** One fault that was; times on the clock of `performance.now`. */
export interface Occurrence {
  kind: string
  target: Target
  /** undefined: not one instance */
  instance: number | undefined
  beganAt: number
  endedAt: number
  /** later than its end where something has to start again */
  undoneAt: number
  /** how much it did: connections cut, replies swallowed, … */
  hits: number
}

const TARGETS: readonly Target[] = ['postgres', 'redis', 'instance']

/** The quiet before each fault of a target, from and to, in ms: enough to see it recover. */
const QUIET: Record<Target, [number, number]> = {
  postgres: [1_500, 3_500],
  redis: [500, 2_500],
  instance: [1_500, 4_000],
}

/** Until the clients are at full speed. */
const WARM_UP_MS = 1_000

/** What happens so soon after a fault is told of together with it. */
const ECHO_MS = 500

/**
 * The faults of one target, without an end. Whatever the seed is: all kinds come before one comes
 * again.
 */
export function* planFaults(target: Target, seed: number, instances: number) {
  const random = createRandom(seed)
  const kinds = FAULTS.filter((fault) => fault.target === target)
  for (;;) {
    for (const fault of shuffled(random, kinds)) {
      const appointment: Appointment = {
        fault,
        quietMs: integerBetween(random, ...QUIET[target]),
        lastsMs: integerBetween(random, ...fault.lasts),
        instance: integerBetween(random, 0, instances - 1),
        seed: integerBetween(random, 0, 2 ** 32 - 1),
      }
      yield appointment
    }
  }
}

/**
 * Has the faults come, those of one target one after the other, and undoes them all.
 *
 * @throws if the world cannot be healed, or when `broken` is aborted
 */
export async function sendFaults(
  world: World,
  { seed, totalMs, broken }: { seed: number; totalMs: number; broken: AbortSignal },
): Promise<Occurrence[]> {
  const startedAt = performance.now()
  const occurrences: Occurrence[] = []
  const pause = (ms: number) => sleep(ms, undefined, { signal: broken })

  async function strike({ fault, lastsMs, instance, seed }: Appointment): Promise<void> {
    const { kind, target } = fault
    const occurrence: Occurrence = {
      kind,
      target,
      instance: target === 'instance' ? instance : undefined,
      beganAt: performance.now(),
      endedAt: Number.POSITIVE_INFINITY,
      undoneAt: Number.POSITIVE_INFINITY,
      hits: 0,
    }
    occurrences.push(occurrence)
    const over = () => {
      occurrence.endedAt = Math.min(occurrence.endedAt, performance.now())
    }
    await fault.strike({
      world,
      random: createRandom(seed),
      instance,
      last: () => pause(lastsMs),
      pause,
      over,
      hit: (count = 1) => {
        occurrence.hits += count
      },
    })
    over()
    occurrence.undoneAt = performance.now()
  }

  async function sendTo(target: Target): Promise<void> {
    await pause(WARM_UP_MS)
    // Each target has a sequence of its own, so that none depends on how fast the others were.
    const plan = planFaults(target, seed + TARGETS.indexOf(target), world.instances.length)
    for (const appointment of plan) {
      const leftMs = startedAt + totalMs - performance.now()
      if (appointment.quietMs + appointment.lastsMs > leftMs) return
      await pause(appointment.quietMs)
      await strike(appointment)
    }
  }

  await Promise.all(TARGETS.map(sendTo))
  await pause(Math.max(0, startedAt + totalMs - performance.now()))
  return occurrences.sort((a, b) => a.beganAt - b.beganAt)
}

/** The kinds of faults that were at work at a moment of `performance.now`. */
export function faultsAt(moment: number, occurrences: Occurrence[]): string[] {
  return occurrences
    .filter(({ beganAt, endedAt }) => beganAt <= moment && moment <= endedAt + ECHO_MS)
    .map(({ kind }) => kind)
}
