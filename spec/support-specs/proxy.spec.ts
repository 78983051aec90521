import { expect } from 'chai';
import type { Redis } from 'ioredis';
import { eventually } from '../support/deferred.js';
import { startProxy, type Proxy } from '../support/proxy.js';
import { lendRedis, redisUrl, uniqueName } from '../support/redis.js';

describe('the proxy', () => {
  let proxy: Proxy;
  let direct: Redis;
  let key: string;

  beforeEach(async () => {
    proxy = await startProxy(Number(new URL(redisUrl()).port || 6379));
    direct = lendRedis();
    key = uniqueName();
  });

  /** Fails fast: no command waits for a connection, none is sent twice. */
  const through = async (): Promise<Redis> => {
    const client = lendRedis({
      url: proxiedUrl(),
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      retryStrategy: () => 10,
    });
    await client.ping();
    return client;
  };

  const proxiedUrl = (): string => {
    const url = new URL(redisUrl());
    url.host = `127.0.0.1:${proxy.port}`;
    return url.href;
  };

  it('forwards', async () => {
    const client = await through();
    const large = 'x'.repeat(1_000_000);
    await client.set(key, large);
    expect(await client.get(key)).to.equal(large);
    expect(proxy.connections).to.equal(1);
  });

  it('cut: ends the connections, and a client may come back', async () => {
    const client = await through();
    proxy.cut();
    await eventually(async () => expect(await client.ping()).to.equal('PONG'));
  });

  it('refuse: keeps the connections and lets in no new one until accept', async () => {
    const client = await through();
    proxy.refuse();
    expect(await client.ping()).to.equal('PONG');
    const late = lendRedis({ url: proxiedUrl(), lazyConnect: true, retryStrategy: () => null });
    const refused = await late.connect().catch((reason: unknown) => reason);
    expect(refused).to.be.an('error');
    await proxy.accept();
    await late.connect();
    expect(await late.ping()).to.equal('PONG');
  });

  it('hold: nothing reaches the server until release', async () => {
    const client = await through();
    proxy.hold();
    const incremented = client.incr(key);
    await roundTrips();
    expect(await direct.get(key)).to.equal(null);
    expect(proxy.connections).to.equal(1);
    proxy.release();
    expect(await incremented).to.equal(1);
  });

  it('holdReplies: the server runs the command, its client waits', async () => {
    const client = await through();
    proxy.holdReplies();
    let answered = false;
    const incremented = client.incr(key).finally(() => (answered = true));
    await eventually(async () => expect(await direct.get(key)).to.equal('1'));
    await roundTrips();
    expect(answered).to.equal(false);
    proxy.releaseReplies();
    expect(await incremented).to.equal(1);
  });

  it('dropReplies: the server runs the command, its client sees the connection end', async () => {
    const client = await through();
    const dropped = proxy.dropReplies();
    const outcome = await client.incr(key).catch((reason: unknown) => reason);
    await dropped;
    expect(outcome).to.be.an('error');
    expect(await direct.get(key)).to.equal('1');
    await eventually(async () => expect(await client.get(key)).to.equal('1'));
  });

  it('dropReplies: loses also the answers that are held', async () => {
    const client = await through();
    proxy.holdReplies();
    const outcome = client.incr(key).catch((reason: unknown) => reason);
    await eventually(async () => expect(await direct.get(key)).to.equal('1'));
    await roundTrips();
    await proxy.dropReplies();
    expect(await outcome).to.be.an('error');
  });

  it('delayMs: holds each reply back for so long, in order', async () => {
    const client = await through();
    proxy.delayMs = 60;
    const start = performance.now();
    expect(await Promise.all([client.incr(key), client.incr(key)])).to.deep.equal([1, 2]);
    expect(performance.now() - start).to.be.within(55, 5_000);
  });

  /** Time for what the proxy would wrongly forward: some round trips of a connection beside it. */
  const roundTrips = async (): Promise<void> => {
    for (let trip = 0; trip < 20; trip++) await direct.ping();
  };
});
