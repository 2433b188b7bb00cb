/** Finds the elements of a page. */

/**
 * Returns the element with this id.
 *
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @throws {Error} if the page has no element of this type with this id
 */
export function find(id, type) {
  const element = document.getElementById(id)
  if (!(element instanceof type)) throw new Error(`the page has no ${type.name} called ${id}`)
  return element
}
