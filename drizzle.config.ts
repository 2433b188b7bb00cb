import { defineConfig } from 'drizzle-kit'

export default defineConfig({
  dialect: 'postgresql',
  schema: ['./src/orders/table.ts', './src/stores/identity-table.ts'],
  out: './migrations',
})
