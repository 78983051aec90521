import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { lend } from './lenders.js';
import { freePort } from './servers/free-port.js';

/** A private CA, a certificate for servers of 127.0.0.1, and one for clients: the paths of PEM files. */
export interface Certificates {
  readonly ca: string;
  readonly server: Certificate;
  readonly client: Certificate;
}

interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** Made by openssl in a temporary folder, which goes away with the spec or the suite. */
export function lendCertificates(): Certificates {
  const folder = mkdtempSync(join(tmpdir(), 'gencache-tls-'));
  lend({ what: 'the certificates', close: () => rmSync(folder, { recursive: true }) });
  const path = (name: string) => join(folder, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const key = (name: string) => [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-keyout',
    path(name),
  ];
  openssl('req', '-x509', ...key('ca.key'), '-out', path('ca.pem'), '-days', '2', '-subj', '/CN=A private CA');
  const signed = (name: string): Certificate => {
    const names = path(`${name}.names`);
    writeFileSync(names, 'subjectAltName=IP:127.0.0.1\n');
    openssl('req', ...key(`${name}.key`), '-out', path(`${name}.csr`), '-subj', `/CN=${name}`);
    openssl(
      ...['x509', '-req', '-in', path(`${name}.csr`), '-CA', path('ca.pem'), '-CAkey', path('ca.key')],
      ...['-CAcreateserial', '-days', '2', '-extfile', names, '-out', path(`${name}.pem`)],
    );
    return { cert: path(`${name}.pem`), key: path(`${name}.key`) };
  };
  return { ca: path('ca.pem'), server: signed('server'), client: signed('client') };
}

/** Arguments of a redis-server, or a Sentinel, that speaks TLS on a port beside its plain one. */
export async function tlsArguments(
  { ca, server }: Certificates,
  { asksClients = false } = {},
): Promise<{ readonly tlsPort: number; readonly args: readonly string[] }> {
  const tlsPort = await freePort();
  const settings = {
    ...{ port: String(tlsPort), 'cert-file': server.cert, 'key-file': server.key, 'ca-cert-file': ca },
    ...{ 'auth-clients': asksClients ? 'yes' : 'no', replication: 'yes', cluster: 'yes' },
  };
  return { tlsPort, args: Object.entries(settings).flatMap(([name, value]) => [`--tls-${name}`, value]) };
}

export function pem(path: string): string {
  return readFileSync(path, 'utf8');
}
