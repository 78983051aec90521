import { expect } from 'chai';
import { logTo } from '../../lib/telemetry/log.js';
import { Emitter } from '../../lib/telemetry/emitter.js';
import { StoreUnavailableError } from '../../lib/index.js';
import { lendCache } from '../support/cache.js';
import { eventually } from '../support/deferred.js';
import { privateRedis } from '../support/redis.js';

describe('the log of failures', () => {
  function lendLog(everyMs = 60_000) {
    const lines: string[] = [];
    const write = (level: string) => (line: string) => void lines.push(`${level} ${line}`);
    const log = { debug() {}, info: write('info'), warn: write('warn'), error: write('error') };
    const telemetry = new Emitter();
    logTo(log, telemetry, everyMs);
    const fail = (operation: 'read' | 'connection' | 'fill', message = 'no reply') =>
      telemetry.emit('storeFailure', { cache: 'shop', operation, error: new StoreUnavailableError(message, false) });
    return { log, lines, telemetry, fail };
  }

  it('has the first line of a condition at once, and no second one within the interval', () => {
    const { lines, fail } = lendLog();
    for (let i = 0; i < 1_000; i++) fail('read');
    expect(lines).to.deep.equal(['warn shop: store failed, read: no reply']);
  });

  it('has a line in each interval, with the number left out', async () => {
    const { lines, fail } = lendLog(30);
    for (let i = 0; i < 5; i++) fail('read');
    await new Promise((resolve) => setTimeout(resolve, 40));
    fail('read');
    expect(lines).to.deep.equal([
      'warn shop: store failed, read: no reply',
      'warn shop: store failed, read: no reply (4 more since the last line)',
    ]);
  });

  it('has the end of a condition, with the number left out', () => {
    const { lines, telemetry, fail } = lendLog();
    for (let i = 0; i < 4; i++) fail('connection', 'ECONNREFUSED');
    for (let i = 0; i < 3; i++) fail('read');
    telemetry.emit('storeUp', { cache: 'shop' });
    telemetry.emit('breakerChanged', { cache: 'shop', operation: 'read', isOpen: false });
    fail('read');
    expect(lines).to.deep.equal([
      'warn shop: store failed, connection: ECONNREFUSED',
      'warn shop: store failed, read: no reply',
      'info shop: store is up (3 more since the last line)',
      'info shop: reads use the store again (2 more since the last line)',
      'warn shop: store failed, read: no reply', // another outage
    ]);
  });

  it('has the first five beginnings and ends of a condition that flaps, in each interval', async () => {
    const { lines, telemetry, fail } = lendLog(200);
    const flap = () => {
      fail('connection', 'ECONNREFUSED');
      telemetry.emit('storeUp', { cache: 'shop' });
    };
    for (let i = 0; i < 50; i++) flap();
    const pair = ['warn shop: store failed, connection: ECONNREFUSED', 'info shop: store is up'];
    expect(lines).to.deep.equal(Array(5).fill(pair).flat());
    await new Promise((resolve) => setTimeout(resolve, 250));
    flap();
    expect(lines.slice(10)).to.deep.equal([
      'warn shop: store failed, connection: ECONNREFUSED (45 more since the last line)',
      'info shop: store is up',
    ]);
  });

  it('tells conditions apart by operation and kind of error, and entries by name and reason', () => {
    const { lines, telemetry, fail } = lendLog();
    fail('read');
    fail('fill');
    telemetry.emit('storeFailure', { cache: 'shop', operation: 'read', error: new TypeError('another') });
    const labels = { cache: 'shop', namespace: 'item', path: 'item=1', message: 'checksum' };
    for (const [entry, reason] of [
      ['price', 'checksum'],
      ['price', 'checksum'],
      ['price', 'truncated'],
      ['name', 'checksum'],
    ] as const) {
      telemetry.emit('decodeFailure', { ...labels, entry, reason });
    }
    expect(lines).to.have.length(6);
  });

  it('forgets the oldest of many conditions, and writes its next line at once', () => {
    const { lines, telemetry } = lendLog();
    const fail = (reason: string) =>
      telemetry.emit('decodeFailure', {
        ...{ cache: 'shop', namespace: 'item', entry: 'price', path: 'item=1', message: 'checksum' },
        reason,
      });
    for (let i = 0; i <= 1_000; i++) fail(`reason ${i}`);
    fail('reason 1000');
    expect(lines).to.have.length(1_001);
    fail('reason 0');
    expect(lines).to.have.length(1_002);
  });

  it('of an outage under load has a few lines, not one for each read', async () => {
    const server = await privateRedis();
    const { lines, log } = lendLog();
    const { cache, value } = lendCache({ url: server.url, readDeadlineMs: 300, log, rows: new Map([[1, 'one']]) });
    await value.fetch({ item: 1 });
    await server.kill('SIGKILL');
    await eventually(() => expect(cache.state.connection).to.include({ isUp: false }));
    for (let i = 0; i < 500; i++) expect(await value.fetch({ item: 1 })).to.equal('one');
    await server.restart();
    await eventually(() => expect(cache.state.connection).to.include({ isUp: true }));
    await eventually(async () => {
      await value.fetch({ item: 1 });
      expect(cache.state.reads).to.include({ isUp: true });
    });
    expect(lines.length).to.be.at.most(12);
    expect(lines.filter((line) => line.includes('reads use the store again'))).to.have.length(1);
  });
});
