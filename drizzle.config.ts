import { defineConfig } from 'drizzle-kit'

export default defineConfig({
  dialect: 'postgresql',
  schema: './src/orders/orders-table.ts',
  out: './migrations',
})
