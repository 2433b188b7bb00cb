import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'

/** One instruction of a Dockerfile. */
export interface Instruction {
  /** in upper case, such as COPY */
  name: string
  /** those before the arguments, such as `from` of `--from=build` */
  options: Record<string, string>
  /** what follows, as one text */
  text: string
}

/** What is built from one FROM. */
export interface Stage {
  name: string | undefined
  image: string
  instructions: Instruction[]
}

const ROOT = new URL('../../', import.meta.url)

/** Reads the Dockerfile as Docker does, as far as this one goes: without heredocs and directives. */
export async function readDockerfile(): Promise<Stage[]> {
  const file = await readFile(new URL('Dockerfile', ROOT), 'utf8')
  const lines = file.replace(/^\s*#.*\n/gm, '').replace(/\\\n/g, ' ')
  const args: Record<string, string> = {}
  const stages: Stage[] = []
  for (const line of lines.split('\n')) {
    if (line.trim() === '') continue
    const instruction = parseInstruction(line)
    const { name, text } = instruction
    if (name === 'FROM') {
      const [image = '', , alias] = text.split(/\s+/)
      const resolved = image.replace(/\$\{(\w+)\}/g, (_, arg) => args[arg] ?? '')
      stages.push({ name: alias, image: resolved, instructions: [] })
    } else if (stages.length === 0) {
      const [arg = '', value = ''] = text.split('=')
      args[arg] = value
    } else {
      stages.at(-1)?.instructions.push(instruction)
    }
  }
  return stages
}

function parseInstruction(line: string): Instruction {
  const [, name = '', rest = ''] = /^\s*(\w+)\s+(.*?)\s*$/.exec(line) ?? []
  const options: Record<string, string> = {}
  const text = rest.replace(/^(--[\w-]+=\S+\s+)+/, (given) => {
    for (const [, option = '', value = ''] of given.matchAll(/--([\w-]+)=(\S+)/g)) {
      options[option] = value
    }
    return ''
  })
  return { name: name.toUpperCase(), options, text }
}

/** The instructions of one name. */
export const all = (stage: Stage, name: string): Instruction[] =>
  stage.instructions.filter((instruction) => instruction.name === name)

/** The last instruction of a name, which is the one that counts. */
export function last(stage: Stage, name: string): Instruction {
  const instruction = all(stage, name).at(-1)
  if (instruction === undefined) throw new Error(`the Dockerfile has no ${name}`)
  return instruction
}

/** What a stage sets in the environment. */
export function environmentOf(stage: Stage): Record<string, string> {
  const pairs = all(stage, 'ENV').flatMap(({ text }) => text.split(/\s+/))
  return Object.fromEntries(pairs.map((pair) => pair.split('=') as [string, string]))
}

/** Whether the build gets a file of the project: it exists, and `.dockerignore` lets it in. */
export async function isInBuildContext(path: string): Promise<boolean> {
  const file = await readFile(new URL('.dockerignore', ROOT), 'utf8')
  const [everything, ...exceptions] = file.split('\n').filter((line) => /^[^#]/.test(line))
  if (everything !== '*' || !exceptions.every((line) => /^!\.?[\w.-]+$/.test(line))) {
    throw new Error('.dockerignore is read here as "*" and names that are let in')
  }
  const top = path.split('/')[0]
  return exceptions.includes(`!${top}`) && existsSync(new URL(path, ROOT))
}
