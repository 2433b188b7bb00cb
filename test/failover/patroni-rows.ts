import type { Row } from './rows.ts'
export const patroniRows: Row[] = []
