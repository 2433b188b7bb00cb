/** A Redis Cluster of three masters and three replicas, which belongs to the process that starts it. */
import { Command, Redis } from 'ioredis'
import { freePort } from '../../src/stores/embedded/free-port.ts'
import { type RedisProcess, startRedisProcess } from './redis-process.ts'
import { until } from './until.ts'

const SLOTS = 16_384
const MASTERS = 3

/** Finds a key with this beginning for each slot from 0 on. */
export function findKeys(beginning: string, slots: number): string[] {
  const keys: string[] = []
  const missing = new Set(Array.from({ length: slots }, (_, slot) => slot))
  for (let i = 0; missing.size > 0; i++) {
    const key = `${beginning}${i}`
    const slot = Number(new Command('get', [key]).getSlot())
    if (missing.delete(slot)) keys[slot] = key
  }
  return keys
}

/** Short, so that a test does not wait long; a busy machine must not fail over by itself. */
const NODE_TIMEOUT_MS = 5_000

export interface ClusterNode extends RedisProcess {
  port: number
  id: string
  /** a client of this node, which does not follow redirections */
  client: Redis
}

export interface RedisCluster {
  url: string
  /** at first, the three masters come before the three replicas */
  nodes: ClusterNode[]
  /** Finds the node that has a key. */
  findMaster(key: string): Promise<ClusterNode>
  /**
   * Moves slots with their keys from the first master to the second.
   *
   * @param onSlot called in the middle of each move, when the slot belongs to both
   */
  moveSlots(first: number, last: number, onSlot?: (slot: number) => Promise<void>): Promise<void>
  /** Makes a replica the master of its shard. */
  promote(replica: ClusterNode): Promise<void>
  stop(): Promise<void>
}

/** A manual failover that is not complete by then was given up by the nodes. */
const MANUAL_FAILOVER_TIMEOUT_MS = 6_000

/** Starts a cluster, and waits until all nodes see it as complete. */
export async function startRedisCluster(config: string[] = []): Promise<RedisCluster> {
  const nodes: ClusterNode[] = []
  const buses: number[] = []
  for (let i = 0; i < 2 * MASTERS; i++) {
    // By default the bus has the port plus 10000, which may be no port at all.
    const [port, bus] = [await freePort(), await freePort()]
    const process = await startRedisProcess([
      ...[`port ${port}`, 'bind 127.0.0.1', 'save ""', 'repl-diskless-sync-delay 0'],
      ...['cluster-enabled yes', `cluster-port ${bus}`, `cluster-node-timeout ${NODE_TIMEOUT_MS}`],
      'cluster-replica-validity-factor 0',
      ...config,
    ])
    const client = new Redis(port, '127.0.0.1', {
      maxRetriesPerRequest: null,
      enableReadyCheck: false,
    })
    client.on('error', () => {})
    nodes.push({ ...process, port, client, id: String(await client.cluster('MYID')) })
    buses.push(bus)
  }
  const [first, ...others] = nodes as [ClusterNode, ...ClusterNode[]]
  for (const [i, { port }] of others.entries()) {
    await first.client.call('CLUSTER', 'MEET', '127.0.0.1', port, buses[i + 1] as number)
  }
  const allShow = (text: string) =>
    until(async () => {
      const reports = await Promise.all(nodes.map(({ client }) => client.cluster('INFO')))
      return reports.every((report) => `${report}`.includes(text))
    }, 60_000)
  await allShow(`cluster_known_nodes:${nodes.length}`)
  for (let i = 0; i < MASTERS; i++) {
    const [from, to] = [i, i + 1].map((n) => Math.floor((n * SLOTS) / MASTERS)) as [number, number]
    await nodes[i]?.client.call('CLUSTER', 'ADDSLOTSRANGE', from, to - 1)
    await nodes[i + MASTERS]?.client.call('CLUSTER', 'REPLICATE', nodes[i]?.id ?? '')
  }
  await allShow('cluster_state:ok')
  await until(async () => {
    const reports = await Promise.all(nodes.slice(MASTERS).map(({ client }) => client.info()))
    return reports.every((report) => report.includes('master_link_status:up'))
  }, 60_000)
  // Each node has learned of all replicas: a failover needs them.
  await until(async () => {
    const lists = await Promise.all(nodes.map(({ client }) => client.cluster('NODES')))
    return lists.every((list) => `${list}`.match(/ (myself,)?slave /g)?.length === MASTERS)
  }, 60_000)

  return {
    url: `redis+cluster://${nodes.map(({ port }) => `127.0.0.1:${port}`)}`,
    nodes,
    async findMaster(key) {
      const slot = Number(await first.client.cluster('KEYSLOT', key))
      const ranges = await first.client.cluster('SLOTS')
      const range = ranges.find(([from, to]) => from <= slot && slot <= to)
      const node = nodes.find(({ port }) => port === range?.[2]?.[1])
      if (!node) throw new Error(`no node has the slot ${slot}`)
      return node
    },
    async moveSlots(from, to, onSlot) {
      const [source, target] = nodes as [ClusterNode, ClusterNode]
      for (let slot = from; slot <= to; slot++) {
        await target.client.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', source.id)
        await source.client.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', target.id)
        await onSlot?.(slot)
        for (;;) {
          const keys = (await source.client.cluster('GETKEYSINSLOT', slot, 100)) as string[]
          if (keys.length === 0) break
          const keysToMove = ['KEYS', ...keys]
          await source.client.call('MIGRATE', '127.0.0.1', target.port, '', 0, 5_000, ...keysToMove)
        }
        for (const { client } of [target, source]) {
          await client.call('CLUSTER', 'SETSLOT', slot, 'NODE', target.id)
        }
      }
    },
    async promote({ client }) {
      const isMaster = async () => (await client.info()).includes('role:master')
      await until(async () => {
        await client.cluster('FAILOVER').catch(() => {})
        return until(isMaster, MANUAL_FAILOVER_TIMEOUT_MS).catch(() => false)
      }, 60_000)
    },
    async stop() {
      for (const { client } of nodes) client.disconnect()
      for (const node of nodes) await node.kill()
    },
  }
}
