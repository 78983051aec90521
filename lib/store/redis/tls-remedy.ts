const UNKNOWN_CA = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/** Where a server refuses a client's certificate, its alert may come after the end of the connection. */
const REFUSED = /^(ERR_SSL_.*_ALERT_.*CERTIFICATE.*|ECONNRESET|EPIPE)$/;

/** The remedy for an error of a connection by TLS, by its code or that of its cause; undefined for any other error. */
export function tlsRemedy(error: unknown): string | undefined {
  const { code, cause } = (error ?? {}) as { readonly code?: unknown; readonly cause?: unknown };
  if (typeof code !== 'string') return cause instanceof Error ? tlsRemedy(cause) : undefined;
  if (UNKNOWN_CA.has(code)) {
    return (
      'Pass the CA that signed its certificate: `tls: { ca }` of the ioredis client, --redis-cacert of a command, or ' +
      'NODE_EXTRA_CA_CERTS.'
    );
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return 'Connect by a name that the certificate has, or pass that name: `tls: { servername }` of the ioredis client.';
  }
  if (code.startsWith('ERR_OSSL_'))
    return 'Check that `tls: { ca, cert, key }` of the ioredis client are texts in PEM.';
  if (REFUSED.test(code)) {
    return (
      'If the server asks its clients for a certificate, pass one: `tls: { cert, key }` of the ioredis client, --redis-cert ' +
      'and --redis-key of a command. Else check the server and the network.'
    );
  }
  return undefined;
}
