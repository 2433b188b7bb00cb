/** The log on a terminal: lines for a person. Loaded only there. */
import { prettyFactory } from 'pino-pretty'

/** A line about a request, as src/http/request-log.ts writes it. */
interface RequestLine {
  method: string
  /** undefined: no route has its path */
  route?: string
  /** undefined: its client disconnected before the response */
  status?: number
  duration_ms: number
  /** the outcome of its key */
  idempotency?: string
}

/**
 * Creates a function that formats a JSON line for a terminal. A request is one line without its ids, such as
 * `[12:37:20] INFO: POST /orders 201 4.2 ms new`. Other lines keep their members.
 */
export function createTerminalFormatter({ colorize }: { colorize: boolean }) {
  const options = { translateTime: 'SYS:HH:MM:ss', colorize }
  const format = prettyFactory(options)
  const formatRequest = prettyFactory({
    ...options,
    hideObject: true,
    messageFormat: (line) => describeRequest(line as unknown as RequestLine),
  })
  return (line: string): string => {
    const parsed = JSON.parse(line)
    return parsed.msg === 'request' ? formatRequest(parsed) : format(parsed)
  }
}

function describeRequest(line: RequestLine): string {
  const { method, route = '(unknown path)', status = 'disconnected', idempotency = '' } = line
  return `${method} ${route} ${status} ${line.duration_ms.toFixed(1)} ms ${idempotency}`.trimEnd()
}
