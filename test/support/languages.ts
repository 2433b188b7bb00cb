/** The languages of this machine in which docs/clients has programs. */
import { spawnSync } from 'node:child_process'

const succeeds = (program: string, ...args: string[]) => spawnSync(program, args).status === 0

/** Without one of these, a message says so, and the tests of its programs are left out. */
export const hasCurl = succeeds('curl', '--version') && succeeds('openssl', 'version')
export const hasPython = succeeds('python3', '--version')
/** Whether Python has the package for Ed25519. */
export const hasPythonCryptography = succeeds('python3', '-c', 'import cryptography')
export const hasGo = succeeds('go', 'version')
