import { expect } from 'chai';
import { Cluster, type Redis } from 'ioredis';
import { withDeadline } from '../../../lib/async/deadline.js';
import { keyPrefix } from '../../../lib/model/key.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { AskedStore } from '../../ports/asked-store.js';
import { type Certificates, lendCertificates, pem, tlsArguments } from '../../support/certificates.js';
import { eventually } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { freePort } from '../../support/servers/free-port.js';
import { type LendRedisOptions, lendRedis, privateRedis, uniqueName } from '../../support/redis.js';
import { rejection } from '../../support/rejection.js';

const CA_REMEDY =
  'Pass the CA that signed its certificate: `tls: { ca }` of the ioredis client, --redis-cacert of a command, or ' +
  'NODE_EXTRA_CA_CERTS.';
const CERT_REMEDY =
  'If the server asks its clients for a certificate, pass one: `tls: { cert, key }` of the ioredis client, --redis-cert ' +
  'and --redis-key of a command.';

describe('a store by TLS', () => {
  let certificates: Certificates;
  let url: string;
  /** Of a server that asks for a certificate of its clients. */
  let strictUrl: string;

  before(async () => {
    certificates = lendCertificates();
    const open = await tlsArguments(certificates);
    const strict = await tlsArguments(certificates, { asksClients: true });
    await privateRedis({ args: open.args });
    await privateRedis({ args: strict.args });
    url = `rediss://127.0.0.1:${open.tlsPort}`;
    strictUrl = `rediss://127.0.0.1:${strict.tlsPort}`;
  });

  function lendStore(options: LendRedisOptions): { client: Redis; asked: AskedStore } {
    const client = lendRedis({ ...options, lazyConnect: true });
    const store = redisStore(client);
    lend({ what: 'the store', close: () => store.close() });
    return { client, asked: new AskedStore(store, uniqueName(), 1_000) };
  }

  const refusal = async ({ asked }: ReturnType<typeof lendStore>) =>
    (await rejection(asked.bump([asked.generationKey()]))).message;
  const works = ({ asked }: ReturnType<typeof lendStore>) => eventually(() => asked.minted());

  it('trusts a private CA that it is given', async () => {
    await works(lendStore({ url, tls: { ca: pem(certificates.ca) } }));
  });

  it('says what to do about an unknown CA, and connects once the owner passes it', async () => {
    const lent = lendStore({ url });
    expect(await refusal(lent)).to.equal(
      `Redis was not connected within 1000 ms: self-signed certificate in certificate chain. ${CA_REMEDY}`,
    );
    lent.client.options.tls = { ca: pem(certificates.ca) };
    await works(lent);
  });

  it('says what to do where the server asks for a certificate, and connects with one', async () => {
    const ca = pem(certificates.ca);
    const { cert, key } = certificates.client;
    expect(await refusal(lendStore({ url: strictUrl, tls: { ca } }))).to.contain(CERT_REMEDY);
    await works(lendStore({ url: strictUrl, tls: { ca, cert: pem(cert), key: pem(key) } }));
  });

  it('says that the certificate names another host', async () => {
    const lent = lendStore({ url, tls: { ca: pem(certificates.ca), servername: 'redis.example.com' } });
    expect(await refusal(lent)).to.contain(
      'Connect by a name that the certificate has, or pass that name: `tls: { servername }` of the ioredis client.',
    );
  });

  it('tries again after a certificate that could not be parsed', async () => {
    const lent = lendStore({ url, tls: { ca: pem(certificates.ca), cert: 'no certificate', key: 'no key' } });
    expect(await refusal(lent)).to.equal(
      'Redis was not connected within 1000 ms: PEM routines: no start line. Check that `tls: { ca, cert, key }` of the ' +
        'ioredis client are texts in PEM.',
    );
    lent.client.options.tls = { ca: pem(certificates.ca) };
    await works(lent);
  });

  it('follows Sentinels by TLS', async () => {
    const sentinel = await tlsArguments(certificates, { asksClients: true });
    await privateRedis({
      args: ['--sentinel', ...sentinel.args],
      config: `sentinel monitor main 127.0.0.1 ${new URL(strictUrl).port} 1\n`,
    });
    const tls = { ca: pem(certificates.ca), cert: pem(certificates.client.cert), key: pem(certificates.client.key) };
    const options = { sentinels: [{ host: '127.0.0.1', port: sentinel.tlsPort }], name: 'main' };
    await works(lendStore({ ...options, sentinelTLS: tls, tls, enableTLSForSentinelMode: true }));
    const untrusting = lendStore({ ...options, sentinelTLS: {}, tls, enableTLSForSentinelMode: true });
    expect(await refusal(untrusting)).to.equal(
      "Redis was not connected within 1000 ms: No Sentinel told the address of a primary named 'main': self-signed " +
        `certificate in certificate chain. ${CA_REMEDY}`,
    );
  });

  describe('on a Redis Cluster', () => {
    let port: number;

    before(async () => {
      const settings = await tlsArguments(certificates, { asksClients: true });
      const node = await privateRedis({
        args: ['--cluster-enabled', 'yes', '--cluster-port', String(await freePort()), ...settings.args],
      });
      port = settings.tlsPort;
      const admin = lendRedis({ url: node.url });
      await admin.call('CLUSTER', 'ADDSLOTSRANGE', 0, 16_383);
      await eventually(async () => expect(String(await admin.call('CLUSTER', 'INFO'))).to.include('cluster_state:ok'));
    });

    async function answers(nodes: ConstructorParameters<typeof Cluster>[0], tls: object): Promise<boolean> {
      const client = new Cluster(nodes, { lazyConnect: true, redisOptions: { tls } });
      lend({ what: 'the Cluster client', close: () => client.disconnect() });
      const store = redisStore(client, { partitions: 1 });
      lend({ what: 'the store', close: () => store.close() });
      const partition = store.partition(keyPrefix(uniqueName()));
      return withDeadline('time', 2_000, (deadline) => partition.timeMs(deadline)).then(Number.isInteger);
    }

    it('trusts a private CA, and shows its own certificate, whatever form the nodes have', async () => {
      const { ca, client } = certificates;
      const tls = { ca: pem(ca), cert: pem(client.cert), key: pem(client.key) };
      expect(await answers([{ host: '127.0.0.1', port }], tls)).to.equal(true);
      expect(await answers([`rediss://127.0.0.1:${port}`], tls)).to.equal(true);
      expect(await rejection(answers([`rediss://127.0.0.1:${port}`], {})))
        .to.have.property('message')
        .that.contains(CA_REMEDY);
    });
  });
});
