import type { Sql } from 'postgres'
import { RECIPES } from './cases.ts'
import { cpuPerRequest } from './cpu-time.ts'
import { describeCircumstances } from './machine.ts'
import { faultsIn, loadOf, warmUp } from './measure.ts'
import type { Circumstances, LargeTableResults, TableCost } from './results.ts'
import type { Service } from './service.ts'
import { decimal } from './text.ts'
import type { World } from './world.ts'

const SIZES = [100_000, 10_000_000]

/** Few enough for a small table to stay small, and for the log to need no checkpoint in between. */
const ORDERS = 50_000

/** Rows in one statement. */
const BATCH = 1_000_000

/** How full random inserts leave the leaf pages of a B-tree: ln 2. */
const LEAF_FILL = 70

/** Measures what an order costs in a small and in a large table, with random and ascending keys. */
export async function measureLargeTable(
  options: Pick<Circumstances, 'processes' | 'connections'>,
  world: World,
  sizes = SIZES,
): Promise<LargeTableResults> {
  const { stores, load } = world
  const { processes, connections } = options
  const costs: TableCost[] = []
  for (const size of sizes) {
    console.log(`filling the table with ${decimal(size)} rows`)
    await stores.empty()
    await fill(stores.sql, size)
    const service = await world.startService(processes)
    try {
      await warmUp(loadOf(RECIPES['new orders'], service.port, connections), load)
      for (const orderedKeys of [false, true]) {
        const cost = await measureCost(service, connections, orderedKeys, world)
        console.log(
          `${decimal(cost.rows)} rows, ${orderedKeys ? 'ascending' : 'random'} keys: ${decimal(cost.perSecond)}/s; ${decimal(cost.walBytes)} bytes of log an order`,
        )
        costs.push(cost)
      }
    } finally {
      await service.stop()
    }
  }
  return { ...describeCircumstances(options, stores), costs }
}

async function measureCost(
  service: Service,
  connections: number,
  orderedKeys: boolean,
  { stores, load }: World,
): Promise<TableCost> {
  const recipe = RECIPES['new orders']
  await stores.settle()
  const rows = await stores.countOrders()
  const indexBytes = await sizeOfIndex(stores.sql)
  const wal = await walPosition(stores.sql)
  const cpu = () => ({ service: service.cpu(), ...stores.cpu() })
  const before = cpu()
  const answers = await load.send({
    ...loadOf(recipe, service.port, connections),
    orderedKeys,
    requests: Math.ceil(ORDERS / connections) * connections,
  })
  const after = cpu()
  const walAfter = await walPosition(stores.sql)
  const { requests, perSecond } = answers
  const newRows = (await stores.countOrders()) - rows
  return {
    rows,
    orderedKeys,
    requests,
    perSecond,
    cpu: cpuPerRequest(before, after, requests),
    walBytes: (walAfter - wal) / requests,
    indexBytes,
    faults: faultsIn(answers, recipe, newRows, service),
  }
}

async function walPosition(sql: Sql): Promise<number> {
  const [row] = await sql`select pg_current_wal_insert_lsn() - '0/0'::pg_lsn as bytes`
  return Number(row?.bytes)
}

async function sizeOfIndex(sql: Sql): Promise<number> {
  const [row] = await sql`select pg_relation_size('orders_idempotency_key_unique') as bytes`
  return Number(row?.bytes)
}

/** Fills the empty table as if the service had: ascending ids, random keys. */
async function fill(sql: Sql, rows: number): Promise<void> {
  await sql`alter table orders drop constraint orders_idempotency_key_unique`
  for (let filled = 0; filled < rows; filled += BATCH) {
    await sql`
      insert into orders (id, user_id, item, amount, idempotency_key, request_fingerprint)
      select uuidv7(), 'user-1', 'book', 500, gen_random_uuid()::text, 'v1:' || repeat('0', 64)
      from generate_series(1, ${Math.min(BATCH, rows - filled)})`
  }
  // Built at once, the index would be full: each insert would split a page.
  await sql`set maintenance_work_mem = '512MB'`
  await sql.unsafe(`
    create unique index orders_idempotency_key_unique on orders (idempotency_key)
    with (fillfactor = ${LEAF_FILL})`)
  await sql`
    alter table orders add constraint orders_idempotency_key_unique
    unique using index orders_idempotency_key_unique`
  await sql`vacuum analyze orders`
}
