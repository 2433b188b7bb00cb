import { find } from './find.ts'
import { cannotSign, newKey, sign, signingKey } from './signing.ts'

/** Swagger UI, which the page loads before this module. */
declare const SwaggerUIBundle: (options: object) => void

/** What Swagger UI is about to send. */
interface OutgoingRequest {
  method: string
  headers: Record<string, string>
  body?: string
}

/** What Swagger UI gives to a plugin, as far as it is used here. */
interface System {
  React: {
    createElement: (type: unknown, props?: object | null, ...children: unknown[]) => unknown
  }
}

/** A parameter's input in Swagger UI. */
interface InputProps {
  /** the name of the parameter */
  description: string
  disabled: boolean
  onChange(value: string): void
}

const dialog = find('secret-dialog', HTMLDialogElement)
const secret = find('secret', HTMLInputElement)

/** Signs what is tried; made of the secret when it is first needed. */
let key: CryptoKey | undefined

if (cannotSign) find('note', HTMLElement).textContent = cannotSign
followColorScheme()

const reference = await (await fetch('/openapi.json')).json()
for (const parameter of reference.paths['/orders'].post.parameters) {
  if (parameter.name === 'Idempotency-Key') parameter.example = newKey()
}

SwaggerUIBundle({
  dom_id: '#reference',
  spec: reference,
  deepLinking: true,
  defaultModelsExpandDepth: 0, // closed: the examples tell as much
  plugins: [signedRequests],
  requestInterceptor: signRequest,
  responseInterceptor: (response: { status: number }) => {
    if (response.status === 401) key = undefined // a wrong secret: the next request asks again
    return response
  },
})

/** The reference asks for the secret itself, and offers new keys. */
function signedRequests({ React }: System) {
  const nothing = () => () => null
  return {
    wrapComponents: {
      authorizeBtn: nothing,
      authorizeOperationBtn: nothing,
      JsonSchemaForm: (Input: unknown) => (props: InputProps) => {
        const input = React.createElement(Input, props)
        if (props.description !== 'Idempotency-Key' || props.disabled) return input
        const onClick = () => props.onChange(newKey())
        const button = React.createElement('button', { className: 'btn', onClick }, 'New key')
        return React.createElement('div', { className: 'key' }, input, button)
      },
    },
  }
}

/** Signs the body exactly as it is about to be sent. */
async function signRequest(request: OutgoingRequest): Promise<OutgoingRequest> {
  if (request.method !== 'POST') return request
  key ??= await signingKey(await askForSecret())
  request.headers['X-Signature'] = await sign(request.body ?? '', key)
  return request
}

/** @throws {Error} if it is not told */
function askForSecret(): Promise<string> {
  return new Promise((resolve, reject) => {
    dialog.returnValue = ''
    dialog.addEventListener(
      'close',
      () => {
        const given = secret.value
        secret.value = ''
        if (dialog.returnValue === 'sign') resolve(given)
        else reject(new Error('Not sent: a request must be signed.'))
      },
      { once: true },
    )
    dialog.showModal()
  })
}

/** Swagger UI is dark by a class, not by the user's preference. */
function followColorScheme() {
  const dark = matchMedia('(prefers-color-scheme: dark)')
  const follow = () => document.documentElement.classList.toggle('dark-mode', dark.matches)
  dark.addEventListener('change', follow)
  follow()
}
