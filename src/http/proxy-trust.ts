/** Which proxies may say in `X-Forwarded-For` who a request comes from. */
import { BlockList, isIP } from 'node:net'

/**
 * Creates the function that Fastify calls for each address of `X-Forwarded-For`, from the last one on, until
 * it returns false.
 *
 * @param proxies addresses and CIDR ranges
 */
export function createProxyTrust(proxies: string[]): (address: string) => boolean {
  const trusted = new BlockList()
  for (const proxy of proxies) {
    const [address = '', prefix] = proxy.split('/')
    const version = isIP(address)
    const family = version === 6 ? 'ipv6' : 'ipv4'
    trusted.addSubnet(address, Number(prefix ?? (version === 6 ? 128 : 32)), family)
  }
  return (given) => {
    const address = removePort(given)
    const version = isIP(address)
    return version !== 0 && trusted.check(address, version === 6 ? 'ipv6' : 'ipv4')
  }
}

/** Removes what some proxies append to an address: `192.0.2.1:80`, `[2001:db8::1]:80`. */
export function removePort(address: string): string {
  return address.replace(/^\[(.*)\](:\d+)?$/, '$1').replace(/^([\d.]+):\d+$/, '$1')
}
