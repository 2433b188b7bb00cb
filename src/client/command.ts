import { type Command, HELP, readFlags, UsageError } from './flags.ts'
import { progressBar } from './progress-bar.ts'
import { isExactlyOnce, repeatOrder } from './repeat-order.ts'
import {
  answerText,
  attemptText,
  outcomeForPrograms,
  requestText,
  tallyHints,
  tallyText,
  tallyVerdictText,
  verdictText,
} from './report.ts'
import { sendOrder } from './send-order.ts'

/** The exit codes. */
const SUCCESS = 0
const NO_ORDER = 1
const WRONG_USAGE = 2

/**
 * Runs the command `order-once`. What happens is told on stdout; why there is no order, in one line,
 * on stderr.
 *
 * @param args those behind the command's name
 * @returns the exit code
 */
export async function run([name, ...args]: string[]): Promise<number> {
  try {
    if (name === undefined) {
      console.error(HELP)
      return WRONG_USAGE
    }
    const command = name === '--help' || name === '-h' ? undefined : await read(name, args)
    if (command === undefined) {
      console.log(HELP)
      return SUCCESS
    }
    const succeeded = await (command.repeat ? repeat(command, command.repeat) : send(command))
    return succeeded ? SUCCESS : NO_ORDER
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    console.error(`order-once: ${error.message}`)
    return WRONG_USAGE
  }
}

function read(name: string, args: string[]) {
  if (name === 'order') return readFlags(args)
  throw new UsageError(`there is no command "${name}", only "order"; --help shows examples`)
}

/** @returns whether the order is in hand */
async function send({ key, order, json, ...bounds }: Command): Promise<boolean> {
  const say = json ? () => {} : console.log
  say(requestText(order))
  let number = 0
  const outcome = await sendOrder(order, {
    ...bounds,
    onAttempt: (attempt) => say(attemptText(++number, attempt)),
  })
  if (json) console.log(JSON.stringify(outcomeForPrograms(key, outcome)))
  else if ('status' in outcome.last) console.log(answerText(outcome.last))
  const isInHand = 'order' in outcome.last && outcome.last.order !== undefined
  const close = isInHand ? say : console.error
  close(verdictText(key, outcome))
  return isInHand
}

/** @returns whether the order was created exactly once */
async function repeat(
  { key, order, json, timeoutMs }: Command,
  { times, concurrency }: { times: number; concurrency: number },
): Promise<boolean> {
  const say = json ? () => {} : console.log
  say(requestText(order))
  const onAnswer = progressBar(times)
  const tally = await repeatOrder(order, times, { concurrency, timeoutMs, onAnswer })
  if (json) console.log(JSON.stringify({ key, ...tally }))
  else console.log([tallyText(tally), '', ...tallyHints(tally)].join('\n'))
  const isOnce = isExactlyOnce(tally)
  const close = isOnce ? say : console.error
  close(tallyVerdictText(key, tally))
  return isOnce
}
