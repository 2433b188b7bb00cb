/** The shared secret of a service without settings. It is published, so production refuses it. */
export const DEVELOPMENT_SECRET = 'super-secret-key'
