import { onTestFinished } from 'vitest'
import { TcpProxy } from './tcp-proxy.ts'

/** Puts a proxy before the server of a URL, until the test is finished. */
export async function proxied(url: string): Promise<{ proxy: TcpProxy; url: string }> {
  const through = new URL(url)
  const proxy = await TcpProxy.start(Number(through.port))
  onTestFinished(() => proxy.close())
  through.host = `127.0.0.1:${proxy.port}`
  return { proxy, url: through.href }
}
