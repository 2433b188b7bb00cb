import { type Spread, spreadOf } from './statistics.ts'

/** A number with the given decimals and with spaces between its thousands, at which no line is broken. */
export function decimal(value: number, decimals = 0): string {
  return value
    .toLocaleString('en', {
      minimumFractionDigits: decimals,
      maximumFractionDigits: decimals,
    })
    .replaceAll(',', '\u00a0')
}

/** Bytes in MB. */
export const megabytes = (bytes: number) => decimal(bytes / 1e6)

/** The median and, of several figures, the extremes; a dash if one was not measured. */
export function range(figures: (number | null)[], decimals = 0): string {
  const known = figures.filter((figure) => figure !== null)
  if (known.length < figures.length || known.length === 0) return '–'
  const { median, min, max }: Spread = spreadOf(known)
  const text = decimal(median, decimals)
  return known.length === 1 ? text : `${text} (${decimal(min, decimals)}–${decimal(max, decimals)})`
}

/** Rows in columns, for a terminal. The first column is text, the others are figures. */
export function columns(rows: string[][]): string {
  const widths = (rows[0] ?? []).map((_, index) =>
    Math.max(...rows.map((row) => row[index]?.length ?? 0)),
  )
  return rows
    .map((row) =>
      row
        .map((cell, index) => {
          const width = widths[index] ?? 0
          return index === 0 ? cell.padEnd(width) : cell.padStart(width)
        })
        .join('  '),
    )
    .join('\n')
}

/** Rows as a table of Markdown, the first one being its head. */
export function markdownTable([head = [], ...rows]: string[][]): string {
  const line = (cells: string[]) => `| ${cells.join(' | ')} |`
  const rule = head.map((_, index) => (index === 0 ? '---' : '---:'))
  return [head, rule, ...rows].map(line).join('\n')
}
