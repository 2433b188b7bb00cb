import type { FastifyPluginAsync } from 'fastify'
import { escapeHtml, HTML, hintOf, htmlOf, wantsPage } from './page.ts'

/** What is kept where, in a few words each, such as `Postgres`. */
export interface StoresInUse {
  orders: string
  /** claims of keys, and finished answers */
  answers: string
  /** counters of the rate limit */
  limits: string
}

export interface FrontPageOptions {
  /** a secret that anybody may know, which the page tells */
  knownSecret: string | undefined
  storesInUse: StoresInUse | undefined
  /** whether `/metrics` is among the routes */
  hasMetrics: boolean
}

const DESCRIPTION =
  'Creates an order exactly once, however often its request is repeated, and gives every repeat the same answer.'

/** The style of the front page. */
export const FRONT_STYLE = `
  body { max-width: 68rem; }
  header { max-width: 40rem; margin: 11vh 0 3rem; }
  h1 { font-size: clamp(1.8rem, 5vw, 2.6rem); line-height: 1.15; letter-spacing: -.02em; margin: .3rem 0 1rem; text-wrap: balance; }
  h2 { font-size: 1.2rem; margin: 0 0 1.2rem; }
  h3 { font-size: 1rem; margin: 0 0 .4rem; }
  header p { margin: 0 0 1rem; }
  a { color: var(--accent); text-underline-offset: .2em; }
  nav { display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; }
  main > section { border-top: 1px solid var(--line); padding: 2rem 0 2.5rem; }
  form { display: grid; gap: 1rem 1.5rem; align-items: start; font-size: 1rem; }
  @media (min-width: 44rem) { form { grid-template-columns: repeat(3, 1fr); } .wide { grid-column: span 2; } }
  label { font-weight: 600; }
  input, button { box-sizing: border-box; font: inherit; border-radius: .4rem; padding: .45rem .7rem; border: 1px solid var(--line); }
  input { width: 100%; min-width: 0; margin-top: .25rem; font-weight: 400; color: inherit; background: var(--tint); }
  .name, small, dt { color: var(--quiet); }
  small { display: block; margin-top: .3rem; font-size: .85rem; }
  .beside { display: flex; gap: .5rem; align-items: end; }
  .beside label { flex: 1; }
  button { color: inherit; background: none; cursor: pointer; white-space: nowrap; }
  button[type=submit] { color: var(--paper); background: var(--accent); border-color: var(--accent); font-weight: 600; }
  button:disabled { opacity: .5; cursor: default; }
  :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
  #verdict { min-height: 1.6em; margin: 1.2rem 0; font-weight: 600; }
  #exchange { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1rem; }
  #exchange[hidden] { display: none; }
  #exchange section { display: flex; flex-direction: column; }
  pre { flex: 1; margin: 0; padding: .9rem 1rem; font: .8rem/1.55 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--tint); border-radius: .5rem; }
  mark { color: var(--accent); background: none; font-weight: 700; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem; margin: 0; }
  dd { margin: 0; }
`

/** `GET /`: what this is, as a page on which an order can be tried, or as JSON. */
export const frontPage: FastifyPluginAsync<FrontPageOptions> = async (app, options) => {
  const { storesInUse, hasMetrics } = options
  const links = {
    reference: '/docs',
    openapi: '/openapi.json',
    health: '/health/ready',
    ...(hasMetrics && { metrics: '/metrics' }),
  }
  const page = pageOf(links, options)
  app.get('/', (request, reply) => {
    if (wantsPage(request, reply)) return reply.type(HTML).send(page)
    return reply.send({ name: 'order-once', description: DESCRIPTION, stores: storesInUse, links })
  })
}

const LINK_TEXTS: Record<string, string> = {
  reference: 'API reference',
  openapi: 'OpenAPI document',
  health: 'Health',
  metrics: 'Metrics',
}

function pageOf(
  links: Record<string, string>,
  { knownSecret, storesInUse }: FrontPageOptions,
): string {
  const anchors = Object.entries(links).map(
    ([name, path]) => `<a href="${path}">${LINK_TEXTS[name]}</a>`,
  )
  return htmlOf({
    title: 'order-once',
    style: FRONT_STYLE,
    head: `<link rel="icon" href="data:,">
<script src="/assets/front-page.js" type="module"></script>
`,
    body: `<header>
<p class="name">order-once</p>
<h1>One order, however often it is sent</h1>
<p>A client posts an order under a key of its own. It clicks twice, its network drops, its retry loop runs wild: there is still one order, and every repeat gets the same answer, byte for byte.</p>
<nav aria-label="About this service">${anchors.join(' ')}</nav>
</header>
<main>
<section aria-labelledby="try">
<h2 id="try">Send one order twice</h2>
<form id="order">
<label>User <input id="user_id" value="user-1" maxlength="255" required></label>
<label>Item <input id="item" value="book" maxlength="255" required></label>
<label>Amount <input id="amount" type="number" value="500" min="0.0001" max="99999999999.9999" step="0.0001" required></label>
<div class="wide beside"><label>Idempotency-Key <input id="key" maxlength="255" spellcheck="false" required></label><button id="new-key" type="button">New key</button></div>
<div><label>Shared secret <input id="secret" type="password" autocomplete="off" required aria-describedby="about-secret"></label>
<small id="about-secret">${hintOf(knownSecret)}It stays in this page.</small></div>
<button id="send" type="submit">Sign and send twice</button>
</form>
<p id="verdict" role="status"></p>
<div id="exchange" hidden>
<section aria-labelledby="request-title"><h3 id="request-title">Request</h3><pre id="request"></pre></section>
<section aria-labelledby="answer-title"><h3 id="answer-title">Answer</h3><pre id="answer"></pre></section>
<section aria-labelledby="replay-title"><h3 id="replay-title">Replay</h3><pre id="replay"></pre></section>
</div>
</section>
${storesSection(storesInUse)}</main>`,
  })
}

function storesSection(stores: StoresInUse | undefined): string {
  if (stores === undefined) return ''
  return `<section aria-labelledby="stores">
<h2 id="stores">Stores in use</h2>
<dl>
<dt>Orders</dt><dd>${escapeHtml(stores.orders)}</dd>
<dt>Keys and answers</dt><dd>${escapeHtml(stores.answers)}</dd>
<dt>Rate limits</dt><dd>${escapeHtml(stores.limits)}</dd>
</dl>
</section>
`
}
