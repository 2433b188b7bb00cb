/** CPU time of several programs so far, in µs; null of what is not measured. */
export type CpuTimes<Name extends string> = Record<Name, number | null>

/** µs of CPU that each program took for each request in between. */
export function cpuPerRequest<Name extends string>(
  before: CpuTimes<Name>,
  after: CpuTimes<Name>,
  requests: number,
): CpuTimes<Name> {
  const perRequest = { ...after }
  for (const name of Object.keys(after) as Name[]) {
    const [from, to] = [before[name], after[name]]
    perRequest[name] = from === null || to === null ? null : (to - from) / requests
  }
  return perRequest
}
