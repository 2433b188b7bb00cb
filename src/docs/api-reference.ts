import type { FastifyPluginAsync } from 'fastify'
import { HTML, hintOf, htmlOf } from './page.ts'

export interface ApiReferenceOptions {
  /** a secret that anybody may know, which the page tells */
  knownSecret: string | undefined
}

/** The style of the page around Swagger UI, which has a style of its own. */
export const REFERENCE_STYLE = `
  html.dark-mode, html.dark-mode .swagger-ui { background: var(--paper); }
  *, ::before, ::after { box-sizing: border-box; }
  header { max-width: 1460px; margin: 0 auto; padding: 1.5rem 20px 0; }
  body { padding: 0; }
  header a { color: var(--accent); margin-right: 1.2rem; text-underline-offset: .2em; }
  #note { color: var(--quiet); margin: .3rem 0 0; }
  .swagger-ui .info { margin: 2.5rem 0 1.5rem; }
  html.dark-mode .swagger-ui .header-col { color: inherit; }
  .swagger-ui .scheme-container, .swagger-ui .response-col_links { display: none; }
  .key { display: flex; flex-wrap: wrap; gap: .6rem; }
  .swagger-ui .key input { flex: 0 1 27rem; max-width: none; margin: 0; }
  .swagger-ui .key .btn { color: var(--ink); border-color: var(--line); }
  dialog { width: min(28rem, 100vw - 2rem); padding: 1.5rem; border: 1px solid var(--line); border-radius: .6rem; color: var(--ink); background: var(--paper); }
  dialog::backdrop { background: rgb(10 12 20 / .5); }
  dialog label { font-weight: 600; }
  dialog input { width: 100%; margin: .4rem 0 .6rem; padding: .5rem .7rem; font: inherit; color: inherit; background: var(--tint); border: 1px solid var(--line); border-radius: .4rem; }
  dialog p { margin: 0 0 1rem; font-size: .95rem; color: var(--quiet); }
  dialog button { font: inherit; padding: .4rem 1rem; border: 1px solid var(--accent); border-radius: .4rem; color: var(--paper); background: var(--accent); cursor: pointer; }
  dialog button[value=""] { color: inherit; background: none; border-color: var(--line); }
`

/** `GET /openapi.json`, the OpenAPI document; `GET /docs`, a page to read it and to try it out. */
export const apiReference: FastifyPluginAsync<ApiReferenceOptions> = async (
  app,
  { knownSecret },
) => {
  const page = htmlOf({
    title: 'order-once: API reference',
    style: REFERENCE_STYLE,
    head: `<link rel="icon" href="data:,">
<link rel="stylesheet" href="/assets/swagger-ui.css">
<script src="/assets/swagger-ui-bundle.js" defer></script>
<script src="/assets/api-reference.js" type="module"></script>
`,
    body: `<header>
<a href="/">Front page</a> <a href="/openapi.json">OpenAPI document</a>
<p id="note">“Try it out” asks once for the secret, and signs in this page. The secret stays in its memory until the page is left.</p>
</header>
<main id="reference"></main>
<dialog id="secret-dialog" aria-label="Sign the request">
<form method="dialog">
<label for="secret">Shared secret</label>
<input id="secret" type="password" autocomplete="off" required aria-describedby="about-secret">
<p id="about-secret">${hintOf(knownSecret)}It signs what you send from this page, and is neither sent nor stored.</p>
<button value="sign">Sign and send</button>
<button value="" formnovalidate>Cancel</button>
</form>
</dialog>`,
  })
  app.get('/docs', (_request, reply) => reply.type(HTML).send(page))
  app.get('/openapi.json', () => app.swagger())
}
