import { integerBetween, type Random } from './random.ts'
import type { World } from './world.ts'

/** What a fault strikes at; faults of one target follow one another, those of several overlap. */
export type Target = 'postgres' | 'redis' | 'instance'

/** How a fault meets the world. */
export interface Strike {
  world: World
  random: Random
  /** the instance that is struck, if one is */
  instance: number
  /** Waits for as long as this fault lasts; rejects when the run is broken off. */
  last(): Promise<void>
  /** Waits that long; rejects when the run is broken off. */
  pause(ms: number): Promise<void>
  /** The world is as it should be from now on, though the fault's own work is not done yet. */
  over(): void
  /** Counts what the fault really did. */
  hit(count?: number): void
}

export interface Fault {
  kind: string
  target: Target
  /** how long it lasts, from and to, in ms; 0: an instant */
  lasts: [number, number]
  /** Does it and undoes it; what it did is undone if it throws, too. */
  strike(strike: Strike): Promise<void>
}

/** The service gives a query 5 s: some silences are shorter and some longer. */
const SILENCE: [number, number] = [1_000, 7_000]
/** Long enough to strike hundreds of statements. */
const SPELL: [number, number] = [2_000, 4_000]
const OUTAGE: [number, number] = [300, 2_500]
const INSTANT: [number, number] = [0, 0]

/** Seldom enough that most statements between two of them succeed. */
const TORN_SHARE = 0.05
const SWALLOWED_SHARE = 0.1

/** Many a second, and still slower than the pool's connections come back. */
const TERMINATE_EVERY_MS = 50

/** The service promises to end within 10 s of SIGTERM; starting node and closing takes some more. */
const TERMINATION_PATIENCE_MS = 12_000

export const FAULTS: readonly Fault[] = [
  {
    kind: 'Postgres killed',
    target: 'postgres',
    lasts: OUTAGE,
    async strike({ world: { postgres, toPostgres }, last, hit }) {
      await postgres.kill()
      hit()
      await last()
      await postgres.restart()
      toPostgres.serverPort = postgres.port
    },
  },
  {
    kind: 'Postgres backends terminated',
    target: 'postgres',
    lasts: SPELL,
    async strike({ world: { postgres, toPostgres }, random, last, pause, hit }) {
      const sql = postgres.connect()
      const spell = last()
      let isOver = false
      const end = () => {
        isOver = true
      }
      spell.then(end, end)
      try {
        while (!isOver) {
          const ports = toPostgres.farPorts
          const victim = ports[integerBetween(random, 0, ports.length - 1)]
          if (victim) hit(await postgres.terminate(sql, [victim]))
          await pause(TERMINATE_EVERY_MS)
        }
        await spell
      } finally {
        await sql.end({ timeout: 1 })
      }
    },
  },
  {
    kind: 'Postgres paused',
    target: 'postgres',
    lasts: SILENCE,
    async strike({ world: { postgres }, last, hit }) {
      try {
        await postgres.pause()
        hit()
        await last()
      } finally {
        postgres.resume()
      }
    },
  },
  {
    kind: 'Postgres silent',
    target: 'postgres',
    lasts: SILENCE,
    async strike({ world: { toPostgres }, last, hit }) {
      toPostgres.hush()
      hit()
      await last().finally(() => toPostgres.speak())
    },
  },
  {
    kind: 'Postgres slow',
    target: 'postgres',
    lasts: SPELL,
    async strike({ world: { toPostgres }, random, last, hit }) {
      toPostgres.latencyMs = integerBetween(random, 20, 200)
      hit()
      await last().finally(() => {
        toPostgres.latencyMs = 0
      })
    },
  },
  {
    kind: 'Postgres connections cut',
    target: 'postgres',
    lasts: INSTANT,
    async strike({ world: { toPostgres }, hit }) {
      hit(toPostgres.farPorts.length)
      toPostgres.cutAll()
    },
  },
  {
    kind: 'cut in mid-statement',
    target: 'postgres',
    lasts: SPELL,
    async strike({ world: { toPostgres }, random, last, hit }) {
      const { tearsRequest } = toPostgres
      toPostgres.tearsRequest = ({ length }) => {
        if (random() >= TORN_SHARE) return false
        hit()
        return { afterBytes: integerBetween(random, 0, length - 1) }
      }
      await last().finally(() => {
        toPostgres.tearsRequest = tearsRequest
      })
    },
  },
  {
    kind: 'reply to an insert swallowed',
    target: 'postgres',
    lasts: SPELL,
    async strike({ world: { toPostgres }, random, last, hit }) {
      const { swallowsReply } = toPostgres
      toPostgres.swallowsReply = (bytes) => {
        if (!tellsOfInsert(bytes) || random() >= SWALLOWED_SHARE) return false
        hit()
        return true
      }
      await last().finally(() => {
        toPostgres.swallowsReply = swallowsReply
      })
    },
  },
  {
    kind: 'Redis killed',
    target: 'redis',
    lasts: OUTAGE,
    async strike({ world: { redis }, last, hit }) {
      await redis.kill()
      hit()
      await last()
      await redis.restart()
    },
  },
  {
    kind: 'Redis paused',
    target: 'redis',
    lasts: SILENCE,
    async strike({ world: { redis }, last, hit }) {
      redis.pause()
      hit()
      await last().finally(() => redis.resume())
    },
  },
  {
    kind: 'Redis flushed',
    target: 'redis',
    lasts: INSTANT,
    async strike({ world: { redis }, hit }) {
      await redis.flush()
      hit()
    },
  },
  {
    kind: 'Redis slow',
    target: 'redis',
    lasts: SPELL,
    async strike({ world: { toRedis }, random, last, hit }) {
      // There and back, within the 200 ms that the service gives a command, and beyond.
      toRedis.latencyMs = integerBetween(random, 20, 200)
      hit()
      await last().finally(() => {
        toRedis.latencyMs = 0
      })
    },
  },
  {
    kind: 'Redis connections cut',
    target: 'redis',
    lasts: INSTANT,
    async strike({ world: { toRedis }, hit }) {
      hit(toRedis.farPorts.length)
      toRedis.cutAll()
    },
  },
  {
    kind: 'instance killed',
    target: 'instance',
    lasts: OUTAGE,
    async strike({ world, instance: index, last, over, hit }) {
      const instance = world.instances[index]
      await instance?.kill()
      hit()
      await last()
      instance?.start()
      over()
      await instance?.listens()
    },
  },
  {
    kind: 'process of an instance killed',
    target: 'instance',
    lasts: INSTANT,
    async strike({ world, hit }) {
      for (const instance of world.instances) if (instance.killWorker()) hit()
    },
  },
  {
    kind: 'instance told to end (SIGTERM)',
    target: 'instance',
    lasts: OUTAGE,
    async strike({ world, instance: index, last, over, hit }) {
      const instance = world.instances[index]
      await instance?.terminate(TERMINATION_PATIENCE_MS)
      hit()
      await last()
      instance?.start()
      over()
      await instance?.listens()
    },
  },
]

/**
 * Whether Postgres says that rows were inserted and the transaction has ended: `INSERT 0 <count>`
 * in CommandComplete, and ReadyForQuery (`Z`, length 5) with the status idle (`I`) at the end.
 */
function tellsOfInsert(bytes: Buffer): boolean {
  return (
    bytes.subarray(-6).toString('latin1') === 'Z\0\0\0\x05I' &&
    /INSERT 0 [1-9]/.test(bytes.toString('latin1'))
  )
}
