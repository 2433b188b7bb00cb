/** Which versions of Node.js are safe. */

/** The first minor and patch version with the fix, by major version. */
const FIXED_IN: Record<number, [minor: number, patch: number]> = {
  20: [20, 2],
  22: [22, 2],
  24: [14, 1],
  25: [8, 2],
}
const OLDEST_FIXED_MAJOR = 26

/**
 * Whether a client can slow down this version of Node.js by strings with colliding hashes (CVE-2026-21717).
 *
 * @param version such as `24.14.1`
 */
export function isOpenToHashCollisions(version: string): boolean {
  const [major = 0, minor = 0, patch = 0] = version.split('.').map(Number)
  const fixedIn = FIXED_IN[major]
  if (fixedIn === undefined) return major < OLDEST_FIXED_MAJOR
  return minor < fixedIn[0] || (minor === fixedIn[0] && patch < fixedIn[1])
}
