/**
 * The element of the page with this id.
 *
 * @throws {Error} if there is none of this type
 */
export function find<T extends HTMLElement>(id: string, type: new () => T): T {
  const element = document.getElementById(id)
  if (!(element instanceof type)) throw new Error(`the page has no ${type.name} called ${id}`)
  return element
}
