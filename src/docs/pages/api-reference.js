/** Shows Swagger UI, which signs its requests and offers new keys. Its file is loaded before this one. */
import { find } from './find.js'
import { importPrivateKey } from './message-signature.js'
import { createKey, importSecret, sign, signingError } from './signing.js'

/**
 * What Swagger UI is about to send.
 * @typedef {{ method: string, url: string, headers: Record<string, string>, body?: string }} SwaggerRequest
 */
/** @typedef {import('./message-signature.js').Message} Message */
/** @typedef {{ name: string, in: string, example?: string, [member: string]: unknown }} Parameter */
/** @typedef {{ parameters?: Parameter[], security?: object[] }} Operation */
/** @typedef {{ servers?: object[], paths: Record<string, Record<string, Operation>> }} OpenApiDocument */
/**
 * The properties of a parameter's input. Its description is the parameter's name.
 * @typedef {{ description: string, disabled: boolean, onChange: (value: string) => void }} InputProps
 */
/**
 * What Swagger UI passes to a plugin, as far as it is used here.
 * @typedef {{ React: { createElement: (type: unknown, props: object | null, ...children: unknown[]) => object } }} System
 */
/** @typedef {{ content?: Record<string, { examples: Record<string, { description: string }> }> }} DescribedResponse */

/** The parameter of the signature. Its description has the command that signs without this page. */
const X_SIGNATURE = {
  name: 'X-Signature',
  in: 'header',
  schema: { type: 'string' },
  description: `Leave it empty, and this page signs when you press Execute. To sign elsewhere:

\`printf %s "$body" | openssl dgst -sha256 -hmac "$HMAC_SECRET" -r | cut -d ' ' -f 1\``,
}

/** The first status of problems, and the only one that is shown with its examples: a table lists all problems. */
const FIRST_PROBLEM_STATUS = 400

const note = find('note', HTMLElement)
const dialog = find('key-dialog', HTMLDialogElement)
const form = /** @type {HTMLFormElement} */ (dialog.querySelector('form'))
const secret = find('secret', HTMLInputElement)
const keyError = find('key-error', HTMLElement)

/** @type {((message: Message) => Promise<Record<string, string>>) | undefined} */
let signRequest

if (signingError) note.textContent = `${signingError} Enter an X-Signature that you made elsewhere.`
followColorScheme()
labelInputs()

/** @type {(config: object) => object} */
const createSwaggerUi = Reflect.get(window, 'SwaggerUIBundle')
createSwaggerUi({
  dom_id: '#reference',
  url: '/openapi.json',
  deepLinking: true,
  defaultModelsExpandDepth: 0, // closed: the examples show as much
  syntaxHighlight: { theme: 'obsidian' }, // for its contrast
  plugins: [createPlugin],
  requestInterceptor: addSignature,
  responseInterceptor: forgetWrongKey,
})

/**
 * The plugin of Swagger UI. The page asks for the secret itself, so the buttons for it are removed.
 *
 * @param {System} system
 */
function createPlugin({ React: { createElement } }) {
  const removeComponent = () => () => null
  return {
    statePlugins: {
      spec: { wrapActions: { updateJsonSpec: addParameters, setRequest: setUnsignedRequest } },
    },
    wrapComponents: {
      InfoContainer: removeComponent, // the header of the page has it
      authorizeBtn: removeComponent,
      authorizeOperationBtn: removeComponent,
      // Without a link inside of the button that opens an operation: it has the link in the address.
      DeepLink:
        () =>
        (/** @type {{ text: string }} */ { text }) =>
          createElement('span', null, text),
      operations: (/** @type {unknown} */ Operations) => (/** @type {object} */ props) =>
        createElement(
          'div',
          null,
          createElement('h2', { className: 'operations-title' }, 'Operations'),
          createElement(Operations, props),
        ),
      JsonSchemaForm: (/** @type {unknown} */ Input) => (/** @type {InputProps} */ props) => {
        const input = createElement(Input, props)
        if (props.description !== 'Idempotency-Key' || props.disabled) return input
        const onClick = () => props.onChange(createKey())
        const button = createElement('button', { className: 'btn', onClick }, 'New key')
        return createElement('div', { className: 'key' }, input, button)
      },
      // Each status with its examples would fill ten screens: problems are a table.
      responses: (/** @type {unknown} */ Responses) => (/** @type {any} */ props) => {
        const { responses } = props
        const shown = responses.filter(
          (/** @type {unknown} */ _, /** @type {string} */ status) =>
            Number(status) <= FIRST_PROBLEM_STATUS,
        )
        const rows = listProblems(responses.toJS()).map(([status, code, action]) =>
          createElement(
            'tr',
            { key: code },
            createElement('td', null, status),
            createElement('td', null, createElement('a', { href: `/problems/${code}` }, code)),
            createElement('td', null, action),
          ),
        )
        if (rows.length === 0) return createElement(Responses, props)
        const head = ['Status', 'Code', 'What to do'].map((title) =>
          createElement('th', { key: title, scope: 'col' }, title),
        )
        return createElement(
          'div',
          null,
          createElement(Responses, { ...props, responses: shown }),
          createElement('h4', { className: 'problems-title' }, 'All problems'),
          createElement(
            'table',
            { className: 'problems' },
            createElement('thead', null, createElement('tr', null, ...head)),
            createElement('tbody', null, ...rows),
          ),
        )
      },
    },
  }
}

/**
 * Returns status, code and explanation of each problem.
 *
 * @param {Record<string, DescribedResponse>} responses
 */
function listProblems(responses) {
  return Object.entries(responses).flatMap(([status, { content }]) =>
    Object.entries(content?.['application/problem+json']?.examples ?? {}).map(
      ([code, { description }]) => [status, code, description],
    ),
  )
}

/**
 * Gives the form of each signed request a new key at each visit, and a field for the signature.
 *
 * @param {(document: OpenApiDocument) => void} showDocument
 */
function addParameters(showDocument) {
  return (/** @type {OpenApiDocument} */ document) => {
    delete document.servers // this page sends to the service that it came from
    const operations = Object.values(document.paths).flatMap((path) => Object.values(path))
    for (const { parameters, security } of operations) {
      if (!security?.length || !parameters) continue
      const key = parameters.find(({ name }) => name === 'Idempotency-Key')
      for (const parameter of parameters) {
        // Swagger UI would send the example of an optional header.
        if (parameter.in === 'header') delete parameter.example
      }
      if (key) key.example = createKey()
      parameters.splice(key ? parameters.indexOf(key) + 1 : 0, 0, X_SIGNATURE)
    }
    showDocument(document)
  }
}

/**
 * Shows a request as it is until it is signed. Otherwise Swagger UI fails to show one that is not sent.
 *
 * @param {(...request: unknown[]) => object} setRequest
 * @param {{ specActions: { setMutatedRequest: (...request: unknown[]) => void } }} system
 */
function setUnsignedRequest(setRequest, { specActions }) {
  return (/** @type {unknown[]} */ ...request) => {
    specActions.setMutatedRequest(...request)
    return setRequest(...request)
  }
}

/**
 * Signs a request exactly as it will be sent.
 *
 * @param {SwaggerRequest} request
 */
async function addSignature(request) {
  const { method, headers, body = '' } = request
  const url = new URL(request.url, location.href)
  if (!url.pathname.startsWith('/orders') || headers['X-Signature']) return request
  if (signingError) throw new Error(`Not sent: enter an X-Signature. ${signingError}`)
  signRequest ??= await askForKey()
  Object.assign(headers, await signRequest({ method, url, headers, body }))
  return request
}

/**
 * After a 401, the next request asks for the secret or key again.
 *
 * @param {{ status: number }} response
 */
function forgetWrongKey(response) {
  if (response.status === 401) signRequest = undefined
  return response
}

/**
 * Opens the dialog and returns a function that signs.
 *
 * @returns {Promise<NonNullable<typeof signRequest>>}
 * @throws {Error} if the dialog is cancelled
 */
function askForKey() {
  return new Promise((resolve, reject) => {
    form.onsubmit = async (event) => {
      const { submitter } = event
      if (submitter instanceof HTMLButtonElement && submitter.value !== 'sign') return
      event.preventDefault()
      try {
        resolve(await importKey(secret.value))
        dialog.close()
      } catch (error) {
        keyError.textContent = /** @type {Error} */ (error).message
      }
    }
    // By a button or by Escape. Has no effect after `resolve`.
    dialog.onclose = () => {
      secret.value = keyError.textContent = ''
      reject(new Error('Not sent: a request must be signed.'))
    }
    dialog.showModal()
  })
}

/** @param {string} text a shared secret, or the JSON of a private key */
async function importKey(text) {
  if (text.trimStart().startsWith('{')) return importPrivateKey(text)
  const key = await importSecret(text)
  return async (/** @type {Message} */ { method, url, body }) => ({
    'X-Signature': await sign(method === 'GET' ? url.pathname + url.search : body, key),
  })
}

/** Gives the inputs of Swagger UI, which appear as they are opened, the labels that they lack. */
function labelInputs() {
  const reference = find('reference', HTMLElement)
  const addLabels = () => {
    for (const input of reference.querySelectorAll('input, textarea, select')) {
      if (input.hasAttribute('aria-label')) continue
      const parameter = input.closest('[data-param-name]')?.getAttribute('data-param-name')
      const other = input instanceof HTMLSelectElement ? 'Example' : 'Body'
      input.setAttribute('aria-label', parameter ?? other)
    }
  }
  new MutationObserver(addLabels).observe(reference, { childList: true, subtree: true })
}

/** Swagger UI is dark by a class, not by the user's preference. */
function followColorScheme() {
  const dark = matchMedia('(prefers-color-scheme: dark)')
  const follow = () => document.documentElement.classList.toggle('dark-mode', dark.matches)
  dark.addEventListener('change', follow)
  follow()
}
