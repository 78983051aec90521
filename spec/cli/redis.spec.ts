import { expect } from 'chai';
import { Arguments } from '../../lib/cli/arguments.js';
import { REDIS_OPTIONS } from '../../lib/cli/option.js';
import { redisTemplate } from '../../lib/cli/redis.js';
import { Terminal } from '../../lib/cli/terminal.js';
import { UsageError } from '../../lib/cli/usage-error.js';
import { ClusterClient } from '../../lib/store/redis/cluster/cluster-client.js';
import { type Certificates, lendCertificates, pem } from '../support/certificates.js';
import { thrown } from '../support/rejection.js';

describe('the address of Redis', () => {
  let certificates: Certificates;

  before(() => {
    certificates = lendCertificates();
  });

  function read(url: string, ...options: string[]) {
    let out = '';
    const write = (text: string) => (out += text);
    const terminal = new Terminal({ env: { REDIS_URL: url }, stdout: { write }, stderr: { write } });
    const template = redisTemplate(new Arguments(options, REDIS_OPTIONS), terminal);
    return { template, shown: (text: string) => ((out = ''), terminal.out(text), out.trimEnd()) };
  }

  function sentinels(url: string, ...options: string[]) {
    const { template } = read(url, ...options);
    if (!('redis' in template)) throw new Error('It names a Cluster.');
    return template.redis.options;
  }

  function cluster(url: string, ...options: string[]) {
    const { template } = read(url, ...options);
    if (!('cluster' in template)) throw new Error('It names no Cluster.');
    const nodes = new ClusterClient(template.cluster).startupNodes.map((node) => node.options);
    return { nodes, partitions: template.partitions };
  }

  const refused = (url: string, ...options: string[]) => {
    const error = thrown(() => read(url, ...options));
    expect(error).to.be.instanceOf(UsageError);
    return error.message;
  };

  it('names one server, as ioredis takes it', () => {
    expect(sentinels('redis://user:p%40ss@redis.example.com:7000/2')).to.include({
      ...{ host: 'redis.example.com', port: 7_000, username: 'user', password: 'p@ss', db: 2, sentinels: null },
    });
  });

  it('names Sentinels, the primary, a database, and passwords for both', () => {
    const url =
      'redis+sentinel://user:p%40ss@one,[::1]:7000/mymaster/2?sentinel_username=watch&sentinel_password=s%2Ft';
    expect(sentinels(url)).to.deep.include({
      sentinels: [{ host: 'one' }, { host: '::1', port: 7_000 }],
      ...{ name: 'mymaster', db: 2, username: 'user', password: 'p@ss' },
      ...{ sentinelUsername: 'watch', sentinelPassword: 's/t' },
    });
    expect(sentinels('redis+sentinel://one/mymaster')).to.deep.include({ sentinels: [{ host: 'one' }], db: 0 });
    expect(sentinels('redis+sentinel://one/mymaster').tls).to.equal(undefined);
  });

  it('names nodes of a Cluster, with --partitions', () => {
    const url = 'redis+cluster://user:p%40ss@one,two:7000';
    const { nodes, partitions } = cluster(url, '--partitions', '1');
    expect(nodes.map(({ host, port }) => [host, port])).to.deep.equal([
      ['one', 6_379],
      ['two', 7_000],
    ]);
    for (const node of nodes) expect(node).to.include({ username: 'user', password: 'p@ss' });
    expect(partitions).to.equal(1);
    expect(cluster('redis+cluster://one').partitions).to.equal(undefined);
  });

  it('asks for TLS by rediss, with the files that are named', () => {
    const { ca, client } = certificates;
    const files = ['--redis-cacert', ca, '--redis-cert', client.cert, '--redis-key', client.key];
    const tls = { ca: pem(ca), cert: pem(client.cert), key: pem(client.key) };
    expect(sentinels('rediss://one', ...files).tls).to.deep.equal(tls);
    expect(sentinels('rediss+sentinel://one/mymaster', ...files)).to.deep.include({
      ...{ tls, sentinelTLS: tls, enableTLSForSentinelMode: true },
    });
    expect(cluster('rediss+cluster://one', ...files).nodes[0]!.tls).to.deep.equal(tls);
    expect(cluster('rediss+cluster://one').nodes[0]!.tls).to.deep.equal({});
  });

  it('is refused where a part is missing or unknown', () => {
    for (const path of ['', '/', '/mymaster/x', '/mymaster/0/1']) {
      expect(refused(`redis+sentinel://one${path}`)).to.match(
        /^The address of Sentinels must end with the name that they have for the primary, .* SENTINEL MASTERS lists the names\.$/,
      );
    }
    expect(refused('redis+cluster://one/1')).to.equal(
      "The address of a Redis Cluster must end after its nodes, but got '/1'. A Cluster has database 0 alone.",
    );
    for (const url of ['redis+sentinel://one/mymaster?tls=true', 'redis+cluster://one?sentinel_password=x']) {
      expect(refused(url)).to.match(
        /^The address of Redis may have the parameters sentinel_username and sentinel_password, for Sentinels, but got '\w+'\. Remove it\.$/,
      );
    }
    for (const hosts of ['', ':6379', 'one,', 'one,,two', '/mymaster', '?x=1']) {
      for (const kind of ['cluster', 'sentinel']) {
        expect(refused(`redis+${kind}://${hosts}`)).to.match(
          /^The address of (a Redis Cluster|Sentinels) must have a host in each part between commas, but part [12] has none\. /,
        );
      }
    }
    expect(refused('redis+cluster://one,two:port')).to.match(
      /^REDIS_URL must be an address that begins with redis:\/\/ and can be parsed/,
    );
    expect(refused('redis://one', '--partitions', '64')).to.match(
      /^--partitions is for a Redis Cluster, .* redis\+cluster:\/\/\.$/,
    );
  });

  it('is refused with files that are missing, not needed or not enough', () => {
    const { ca, client } = certificates;
    expect(refused('redis://one', '--redis-cacert', ca)).to.equal(
      '--redis-cacert is for TLS, but the address of Redis names none. Begin it with rediss in place of redis.',
    );
    expect(refused('rediss://one', '--redis-cacert', '/no/such/file')).to.equal(
      "--redis-cacert names a file that can't be read: /no/such/file (ENOENT). Correct the path.",
    );
    expect(refused('rediss://one', '--redis-cert', client.cert)).to.equal(
      '--redis-cert and --redis-key must come together, but one is missing. Add it.',
    );
  });

  it('hides its passwords, as written and decoded', () => {
    const url = 'redis+sentinel://user:p%40ss1@one:1,two:2/mymaster?sentinel_password=p%40ss2';
    expect(read(url).shown(`${url} p@ss1 p%40ss1 p@ss2 p%40ss2`)).to.not.match(/ss1|ss2/);
  });
});
