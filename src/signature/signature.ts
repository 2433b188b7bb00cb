/** Accepts only requests that a client has signed, and identifies the client. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { fastifyPlugin } from 'fastify-plugin'
import type { Client } from '../clients/clients-file.ts'
import { problems } from '../http/problems.ts'
import { listRequiredComponents, verifyMessageSignature } from './message-signature.ts'
import { createSharedSecretCheck } from './shared-secret.ts'
import { parseAuthority, type SignedMessage } from './signature-base.ts'

export interface SignatureOptions {
  /** the secrets of `X-Signature`; none: it is not accepted */
  secrets: string[]
  /** how far the time of a message signature may be in the past or in the future */
  maxAgeSeconds: number
  /** how clients address the service; undefined: as `Host` says */
  publicUrl: string | undefined
}

/** A 401 must name its schemes (RFC 9110 §11.6.1). There are no registered names for these. */
const SHARED_SECRET_CHALLENGE = 'HMAC-SHA256 header="X-Signature"'
const MESSAGE_SIGNATURE_CHALLENGE = 'HTTP-Message-Signature header="Signature-Input"'

/**
 * Verifies the signature of each request and sets `request.client`. There are two schemes: the HMAC-SHA256 of
 * the body in `X-Signature`, whose clients share a secret; and HTTP message signatures (RFC 9421), with keys of
 * the clients. An address that fails too often gets 429 for further failures; its valid requests are not
 * refused, since several clients may share it.
 */
export const signature = fastifyPlugin(
  async (app, { secrets, maxAgeSeconds, publicUrl }: SignatureOptions) => {
    const { clients } = app
    const checkSharedSecret = createSharedSecretCheck(secrets)
    const hasSharedSecret = secrets.length > 0
    const publicAuthority = publicUrl && parseAuthority(new URL(publicUrl).host)
    const options = { findKey: clients.findKey, maxAgeSeconds }

    app.addHook('preHandler', function verifySignature(request, reply, done) {
      try {
        request.client = identifyClient(request)
        done()
      } catch (problem) {
        refuse(request, reply, problem as Error).catch(done)
      }
    })

    /** @throws {Problem} */
    function identifyClient(request: FastifyRequest): Client {
      const { headers } = request
      if (clients.hasFile && (headers['signature-input'] !== undefined || !hasSharedSecret)) {
        return verifyMessageSignature(readMessage(request), options).client
      }
      if (clients.hasFile && headers['x-signature'] === undefined) {
        throw problems.signatureMissing(
          'A signature is required: X-Signature, or Signature-Input and Signature.',
        )
      }
      checkSharedSecret(headers['x-signature'], isRead(request) ? request.url : request.rawBody)
      return clients.getDefaultClient()
    }

    function readMessage({ method, url, headers, raw, rawBody }: FastifyRequest): SignedMessage {
      return {
        method,
        target: url,
        authority: publicAuthority ?? parseAuthority(headers.host ?? ''),
        rawHeaders: raw.rawHeaders,
        body: rawBody,
      }
    }

    /** @throws {Problem} always */
    async function refuse(
      request: FastifyRequest,
      reply: FastifyReply,
      problem: Error,
    ): Promise<never> {
      app.metrics.countSignatureFailure()
      await app.countSignatureFailure(request)
      const challenges = []
      if (hasSharedSecret) challenges.push(SHARED_SECRET_CHALLENGE)
      if (clients.hasFile) {
        challenges.push(MESSAGE_SIGNATURE_CHALLENGE)
        const { method, url: target } = request
        const components = listRequiredComponents({ method, target }).map((name) => `"${name}"`)
        reply.header('accept-signature', `sig1=(${components.join(' ')});created`)
      }
      reply.header('www-authenticate', challenges.join(', '))
      throw problem
    }
  },
  { name: 'signature', dependencies: ['clients', 'raw-body', 'metrics', 'rate-limit-counters'] },
)

/** Whether the request has no body that a signature could cover. */
const isRead = ({ method }: FastifyRequest) => method === 'GET' || method === 'HEAD'
