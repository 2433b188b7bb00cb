/** What a browser lets the pages do: they load only files of the service, and nothing inline. */

const NOTHING_ELSE = {
  defaultSrc: ["'none'"],
  styleSrc: ["'self'"],
  imgSrc: ["'self'"],
  baseUri: ["'none'"],
  formAction: ["'none'"], // no form can send the secret, whatever happens
  frameAncestors: ["'none'"],
}

/** Of pages without a script, in the form that @fastify/helmet takes. */
export const TEXT_PAGE_POLICY = { useDefaults: false, directives: NOTHING_ELSE }

/** Of pages with a script that sends requests to the service. */
export const SCRIPT_PAGE_POLICY = {
  useDefaults: false,
  directives: {
    ...NOTHING_ELSE,
    scriptSrc: ["'self'"],
    imgSrc: ["'self'", 'data:'], // the icons in the style of Swagger UI are data
    connectSrc: ["'self'"],
  },
}
