/** The commands that take Redis, on each set-up beside the plain one: by TLS, behind Sentinels, on a Cluster. */
import { expect } from 'chai';
import { type Certificates, lendCertificates, tlsArguments } from '../support/certificates.js';
import { eventually } from '../support/deferred.js';
import { privateRedis } from '../support/redis.js';
import { privateRedisCluster, type RedisCluster } from '../support/redis-cluster.js';
import { privateRedisSentinels, type RedisSentinels } from '../support/redis-sentinel.js';
import { gencache, startGencache } from './gencache.js';
import { describeCommand, type Installation, lendInstallation } from './installation.js';

const BOUND = ['--max-staleness', '5000'];

describeCommand('gencache relay and gencache doctor', () => {
  let installation: Installation;

  beforeEach(async () => {
    installation = await lendInstallation();
  });

  /** The findings of the doctor about Redis and the relay, as `status check: message`, and its step. */
  async function diagnosed(args: readonly string[]) {
    const { cache, env } = installation;
    const { out, err } = await gencache(['doctor', '--cache', cache, '--json', ...BOUND, ...args], env);
    expect(err).to.equal('');
    const { findings, step } = JSON.parse(out) as {
      findings: { status: string; check: string; message: string; remedy?: string }[];
      step: string;
    };
    const lines = findings.map(({ status, check, message }) => `${status} ${check}: ${message}`);
    return { step, lines, of: (check: string) => findings.filter((finding) => finding.check === check) };
  }

  /** Runs a relay until it has bumped an event and keeps its bound, and asks the doctor. */
  async function relayed(args: readonly string[], each = '') {
    const { cache, db, env } = installation;
    const relay = startGencache(['relay', '--cache', cache, '--report', '50', ...BOUND, ...args], env);
    await db('gencache_outbox').insert({ cache, path: 'item=1', source: 'spec', operation: 'bump' });
    await relay.said(/1 events to 1 scopes.*; trusted\n/);
    const diagnosis = await eventually(async () => {
      const seen = await diagnosed(args);
      expect(seen.lines).to.include(`ok bound: a relay keeps the bounds 5000 ms${each}`);
      return seen;
    });
    expect(diagnosis.lines)
      .to.include(`ok relay: a relay is alive${each}`)
      .and.include(`ok authority: both servers are authoritative${each}`);
    return { relay, diagnosis };
  }

  describe('by TLS', () => {
    let certificates: Certificates;
    let args: readonly string[];

    before(async () => {
      certificates = lendCertificates();
      const { tlsPort, args: settings } = await tlsArguments(certificates, { asksClients: true });
      await privateRedis({ args: settings });
      args = ['--redis', `rediss://127.0.0.1:${tlsPort}`];
    });

    it('trust the CA of --redis-cacert, and show the certificate of --redis-cert', async () => {
      const { ca, client } = certificates;
      const { diagnosis } = await relayed([
        ...args,
        ...['--redis-cacert', ca, '--redis-cert', client.cert, '--redis-key', client.key],
      ]);
      expect(diagnosis.lines.join('\n')).to.match(/^ok Redis: \S+, a primary$/m);
    });

    it('say what to do about an unknown CA', async () => {
      const { cache, env } = installation;
      const [finding] = (await diagnosed(args)).of('Redis');
      expect(finding).to.include({
        status: 'broken',
        message: 'the server is unreachable: self-signed certificate in certificate chain',
        remedy:
          'Pass the CA that signed its certificate: `tls: { ca }` of the ioredis client, --redis-cacert of a command, or NODE_EXTRA_CA_CERTS.',
      });
      const relay = startGencache(['relay', '--cache', cache, ...args], env);
      await relay.said(/certificate chain\. Pass the CA .* --redis-cacert of a command/);
    });
  });

  describe('behind Sentinels', () => {
    let set: RedisSentinels;

    before(async () => {
      set = await privateRedisSentinels({ replicas: 1 });
    });

    it('follow the primary through a failover', async () => {
      const args = ['--redis', set.url];
      const { relay } = await relayed(args);
      await installation.db('gencache_authority').update({ changed_at: new Date(0) });
      await set.failover();
      await relay.said(/2 repairs.*; trusted\n/);
      await eventually(async () =>
        expect((await diagnosed(args)).lines).to.include('ok authority: both servers are authoritative'),
      );
    });

    it('say that no Sentinel answers, or that it knows no such primary', async () => {
      const [away] = (await diagnosed(['--redis', 'redis+sentinel://127.0.0.1:1/main'])).of('Redis');
      expect(away!.message).to.equal(
        "the server is unreachable: No Sentinel told the address of a primary named 'main': connect ECONNREFUSED 127.0.0.1:1",
      );
      const [unknown] = (await diagnosed(['--redis', set.url.replace(/main$/, 'other')])).of('Redis');
      expect(unknown!.message).to.equal(
        "the server is unreachable: No Sentinel told the address of a primary named 'other' (SENTINEL MASTERS lists the names)",
      );
    });
  });

  describe('on a Cluster', () => {
    let cluster: RedisCluster;
    let url: string;

    before(async function () {
      this.timeout(120_000);
      cluster = await privateRedisCluster({ replicas: 0 });
      url = `redis+cluster://127.0.0.1:${cluster.nodes[0]!.port},127.0.0.1:${cluster.nodes[1]!.port}`;
    });

    const named = (at: number) => `127.0.0.1:${cluster.nodes[at]!.port}`;

    it('of one partition, bump it, keep its bound, and look at each primary', async () => {
      const { diagnosis } = await relayed(['--redis', url, '--partitions', '1']);
      expect(diagnosis.lines.join('\n')).to.match(/^ok Redis: \S+, a primary \(all 3 primaries\)$/m);
    });

    it('of 64 partitions, bump them, keep the bound of each, and name processes with another number', async () => {
      const { diagnosis } = await relayed(['--redis', url], ' (all 64 partitions)');
      expect(diagnosis.lines).to.include(
        'ok partitions: relays have made a server authoritative for each of 64 partitions',
      );
      await installation.db('gencache_layout').insert({ cache: installation.cache, partitions: 8 });
      expect((await diagnosed(['--redis', url])).lines).to.include(
        'warn partitions: processes of the last seven days have 8 partitions, not 64',
      );
    });

    it('of 64 partitions, say which primary evicts, and that no relay has run', async () => {
      await cluster.nodes[1]!.admin.config('SET', 'maxmemory', '100mb');
      await cluster.nodes[1]!.admin.config('SET', 'maxmemory-policy', 'allkeys-lru');
      const { lines, step } = await diagnosed(['--redis', url]);
      const memory = lines.filter((line) => line.includes(' Redis memory: '));
      expect(memory).to.have.length(2);
      expect(memory.find((line) => line.startsWith('warn'))).to.contain(`(${named(1)})`);
      expect(memory.find((line) => line.startsWith('ok'))).to.contain(`(${named(0)}, ${named(2)})`);
      expect(lines.filter((line) => line.includes(' relay: '))).to.deep.equal([
        'warn relay: no relay has ever run: events that a crash leaves in the outbox stay unbumped (all 64 partitions)',
      ]);
      expect(step).to.equal('1');
    });

    it('are told to name it as one', async () => {
      const [finding] = (await diagnosed(['--redis', cluster.nodes[0]!.server.url])).of('Redis');
      expect(finding).to.include({
        status: 'broken',
        remedy: 'Begin the address with redis+cluster:// (rediss+cluster:// for TLS).',
      });
      const [single] = (
        await diagnosed(['--redis', (await privateRedis()).url.replace('redis:', 'redis+cluster:')])
      ).of('Redis');
      expect(single!.message).to.match(/^the server is unreachable: .*cluster support disabled/);
    });

    it('one of whose primaries is away, say which, and name no step', async () => {
      await cluster.nodes[2]!.server.kill('SIGKILL');
      const { lines, step } = await diagnosed(['--redis', url]);
      expect(lines.filter((line) => line.startsWith('broken Redis: '))).to.deep.equal([
        `broken Redis: the server is unreachable: connect ECONNREFUSED ${named(2)} (${named(2)})`,
      ]);
      expect(step).to.equal('unknown');
    });
  });
});
