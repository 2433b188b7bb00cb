/**
 * Makes Swagger UI sign its requests and offer new keys. The plugin loads this file as a classic script
 * before it creates Swagger UI on `load`.
 */

/**
 * What Swagger UI is about to send.
 * @typedef {{ method: string, url: string, headers: Record<string, string>, body?: string }} SwaggerRequest
 */
/**
 * The properties of a parameter's input. Its description is the parameter's name.
 * @typedef {{ description: string, disabled: boolean, onChange: (value: string) => void }} InputProps
 */
/**
 * What Swagger UI passes to a plugin, as far as it is used here.
 * @typedef {{ React: { createElement: (type: unknown, props: object, ...children: unknown[]) => object } }} System
 */
/** @typedef {{ paths: Record<string, any> }} OpenApiDocument */

const signing = import('/assets/signing.js')
const additions = addToPage()

/** @type {CryptoKey | undefined} */
let signingKey

/** @type {(config: object) => object} */
const createSwaggerUi = Reflect.get(window, 'SwaggerUIBundle')
/** @param {object} config */
const createSigningSwaggerUi = (config) =>
  createSwaggerUi({
    ...config,
    url: '/openapi.json',
    plugins: [signedRequests],
    requestInterceptor: signRequest,
    responseInterceptor: forgetWrongSecret,
  })
Reflect.set(window, 'SwaggerUIBundle', Object.assign(createSigningSwaggerUi, createSwaggerUi))

followColorScheme()

/**
 * The plugin of Swagger UI. The page asks for the secret itself, so the buttons for it are removed.
 *
 * @param {System} system
 */
function signedRequests({ React }) {
  const removeComponent = () => () => null
  return {
    statePlugins: { spec: { wrapActions: { updateJsonSpec: setNewKey } } },
    wrapComponents: {
      authorizeBtn: removeComponent,
      authorizeOperationBtn: removeComponent,
      JsonSchemaForm: (/** @type {unknown} */ Input) => (/** @type {InputProps} */ props) => {
        const input = React.createElement(Input, props)
        if (props.description !== 'Idempotency-Key' || props.disabled) return input
        const onClick = async () => props.onChange((await signing).createKey())
        const button = React.createElement('button', { className: 'btn', onClick }, 'New key')
        return React.createElement('div', { className: 'key' }, input, button)
      },
    },
  }
}

/**
 * Gives the form of `POST /orders` a new key at each visit.
 *
 * @param {(document: OpenApiDocument) => void} showDocument
 */
function setNewKey(showDocument) {
  return async (/** @type {OpenApiDocument} */ document) => {
    const { createKey } = await signing
    for (const parameter of document.paths['/orders'].post.parameters) {
      if (parameter.name === 'Idempotency-Key') parameter.example = createKey()
    }
    showDocument(document)
  }
}

/**
 * Signs the body exactly as it will be sent; of a GET, the path with its query.
 *
 * @param {SwaggerRequest} request
 */
async function signRequest(request) {
  const { pathname, search } = new URL(request.url, location.href)
  if (!pathname.startsWith('/orders')) return request
  const { importSecret, sign } = await signing
  signingKey ??= await importSecret(await askForSecret())
  request.headers['X-Signature'] = await sign(
    request.method === 'POST' ? (request.body ?? '') : pathname + search,
    signingKey,
  )
  return request
}

/**
 * After a 401, the next request asks for the secret again.
 *
 * @param {{ status: number }} response
 */
function forgetWrongSecret(response) {
  if (response.status === 401) signingKey = undefined
  return response
}

/**
 * Opens the dialog and returns the secret.
 *
 * @returns {Promise<string>}
 * @throws {Error} if the dialog is cancelled
 */
async function askForSecret() {
  const { dialog, input } = await additions
  return new Promise((resolve, reject) => {
    const onClose = () => {
      const secret = input.value
      input.value = ''
      if (dialog.returnValue === 'sign') resolve(secret)
      else reject(new Error('Not sent: a request must be signed.'))
    }
    dialog.returnValue = ''
    dialog.addEventListener('close', onClose, { once: true })
    dialog.showModal()
  })
}

/** Adds the header and the dialog to the page of Swagger UI. */
async function addToPage() {
  const html = await (await fetch('/docs/additions.html')).text()
  document.body.insertAdjacentHTML('afterbegin', html)
  const { signingError } = await signing
  if (signingError) find('note').textContent = signingError
  return {
    dialog: /** @type {HTMLDialogElement} */ (find('secret-dialog')),
    input: /** @type {HTMLInputElement} */ (find('secret')),
  }
}

/** @param {string} id */
function find(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id))
}

/** Swagger UI is dark by a class, not by the user's preference. */
function followColorScheme() {
  const dark = matchMedia('(prefers-color-scheme: dark)')
  const follow = () => document.documentElement.classList.toggle('dark-mode', dark.matches)
  dark.addEventListener('change', follow)
  follow()
}
