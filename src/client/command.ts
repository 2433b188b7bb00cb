/** Runs the command `order-once order`. */
import { HELP, type OrderCommand, readFlags, UsageError } from './flags.ts'
import { createProgressBar } from './progress-bar.ts'
import { isExactlyOnce, repeatOrder } from './repeat-order.ts'
import {
  createJsonReport,
  escapeControls,
  explainRefusals,
  formatAttempt,
  formatOutcome,
  formatRepeatCounts,
  formatRepeatResult,
  formatRequest,
  formatResponse,
} from './report.ts'
import { sendWithRetries } from './send-with-retries.ts'

/** The exit codes. */
const SUCCESS = 0
const NO_ORDER = 1
const WRONG_USAGE = 2

/**
 * Reads the flags and sends the order. Progress and result go to stdout; the reason for a failure goes
 * to stderr, in one line.
 *
 * @param args the flags: the arguments that follow `order`
 * @param environment where the secret is if no flag gives it
 * @returns the exit code
 */
export async function runOrderCommand(
  args: string[],
  environment: Record<string, string | undefined>,
): Promise<number> {
  try {
    const command = await readFlags(args, environment)
    if (command === 'help') {
      console.log(HELP)
      return SUCCESS
    }
    const succeeded = await (command.repeat
      ? repeatAndReport(command, command.repeat)
      : sendAndReport(command))
    return succeeded ? SUCCESS : NO_ORDER
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    console.error(`order-once: ${error.message}`)
    return WRONG_USAGE
  }
}

/** @returns whether the order was received */
async function sendAndReport({ key, order, json, ...limits }: OrderCommand): Promise<boolean> {
  const print = json ? () => {} : printText
  print(formatRequest(order))
  let number = 0
  const outcome = await sendWithRetries(order, {
    ...limits,
    onAttempt: (attempt) => print(formatAttempt(++number, attempt)),
  })
  if (json) printText(JSON.stringify(createJsonReport(key, outcome)))
  else if ('status' in outcome.last) printText(formatResponse(outcome.last))
  const succeeded = 'order' in outcome.last && outcome.last.order !== undefined
  const printResult = succeeded ? print : printError
  printResult(formatOutcome(key, outcome))
  return succeeded
}

/** @returns whether the order was created exactly once */
async function repeatAndReport(
  { key, order, json, timeoutMs }: OrderCommand,
  { times, concurrency }: { times: number; concurrency: number },
): Promise<boolean> {
  const print = json ? () => {} : printText
  print(formatRequest(order))
  const onProgress = createProgressBar(times)
  const summary = await repeatOrder(order, times, { concurrency, timeoutMs, onProgress })
  if (json) printText(JSON.stringify({ key, ...summary }))
  else printText([formatRepeatCounts(summary), '', ...explainRefusals(summary)].join('\n'))
  const succeeded = isExactlyOnce(summary)
  const printResult = succeeded ? print : printError
  printResult(formatRepeatResult(key, summary))
  return succeeded
}

const printText = (text: string) => console.log(escapeControls(text))
const printError = (text: string) => console.error(escapeControls(text))
