import { defineConfig } from 'drizzle-kit'

export default defineConfig({
  dialect: 'postgresql',
  schema: ['./src/orders/orders-table.ts', './src/idempotency/records-table.ts'],
  out: './migrations',
})
