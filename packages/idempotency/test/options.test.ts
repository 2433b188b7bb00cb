import { describe, expect, test } from 'vitest'
import { completeOptions } from '../src/options.ts'
import { memoryStore } from './support/app.ts'

const store = memoryStore()
const defaults = completeOptions({ store })
const names = Object.keys(defaults).filter((name) => name !== 'store') as (keyof typeof defaults)[]

describe('an option that is given as undefined', () => {
  test.each(names)('has its default: %s', (name) => {
    const value = completeOptions({ store, [name]: undefined })[name]
    // Some defaults are functions that each call creates.
    if (typeof defaults[name] === 'function') expect(value).toBeTypeOf('function')
    else expect(value).toEqual(defaults[name])
  })
})
