import { onTestFinished } from 'vitest'
import { TcpProxy } from './tcp-proxy.ts'

/** Starts a proxy in front of the server of a URL; it closes when the test is finished. */
export async function startProxy(serverUrl: string): Promise<{ proxy: TcpProxy; url: string }> {
  const url = new URL(serverUrl)
  const proxy = await TcpProxy.start(Number(url.port))
  onTestFinished(() => proxy.close())
  url.host = `127.0.0.1:${proxy.port}`
  return { proxy, url: url.href }
}
