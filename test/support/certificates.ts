import { execFileSync } from 'node:child_process'
import { join } from 'node:path'

/** A certificate authority of the tests, in a folder. */
export class CertificateAuthority {
  /** the file of its certificate */
  readonly file: string
  readonly #folder: string

  constructor(folder: string, name = 'ca') {
    this.#folder = folder
    this.file = this.#create(name, ['basicConstraints=critical,CA:TRUE'])
  }

  /** @param subject `DNS:…` or `IP:…` @returns the file of its certificate; its key is in `<file>.key` */
  issue(name: string, subject: string): string {
    const signer = ['-CA', this.file, '-CAkey', `${this.file}.key`]
    return this.#create(name, [`subjectAltName=${subject}`], signer)
  }

  #create(name: string, extensions: string[], signer: string[] = []): string {
    const file = join(this.#folder, `${name}.pem`)
    const args = [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ...['-subj', `/CN=${name}`, '-days', '2', '-out', file, '-keyout', `${file}.key`],
      ...extensions.flatMap((extension) => ['-addext', extension]),
      ...signer,
    ]
    execFileSync('openssl', args, { stdio: 'pipe' })
    return file
  }
}
