import { expect } from 'chai';
import { recordCommands } from '../support/commands.js';
import { lendRedis, privateRedis, redisUrl, uniqueName } from '../support/redis.js';

describe('recordCommands', () => {
  it('tells exactly the commands of the work, in order, and its result', async () => {
    const name = uniqueName();
    const client = lendRedis();
    await client.set(`${name}:before`, '1');
    const { result, commands } = await recordCommands(
      redisUrl(),
      async () => {
        await client.set(`${name}:a`, '1', 'PX', 60_000);
        return client.mget(`${name}:a`, `${name}:b`);
      },
      { from: name },
    );
    await client.set(`${name}:after`, '1');
    expect(result).to.deep.equal(['1', null]);
    expect(commands).to.deep.equal([
      ['SET', `${name}:a`, '1', 'PX', '60000'],
      ['MGET', `${name}:a`, `${name}:b`],
    ]);
  });

  it('loses none of many', async () => {
    const name = uniqueName();
    const clients = [1, 2, 3, 4].map(() => lendRedis());
    const { commands } = await recordCommands(
      redisUrl(),
      async () => {
        for (let round = 0; round < 50; round++) {
          await Promise.all(clients.map((client, at) => client.incr(`${name}:${at}`)));
        }
      },
      { from: name },
    );
    expect(commands).to.have.length(200);
  });

  it('leaves out what other users do, and what a script runs', async () => {
    const [name, other] = [uniqueName(), uniqueName()];
    const client = lendRedis();
    const { commands } = await recordCommands(
      redisUrl(),
      async () => {
        await client.set(other, 'x');
        await client.eval("return redis.call('INCR', KEYS[1])", 1, name);
        await client.client('ID');
      },
      { from: name },
    );
    expect(commands).to.deep.equal([['EVAL', "return redis.call('INCR', KEYS[1])", '1', name]]);
  });

  it('frames a transaction with its MULTI and EXEC, and no other', async () => {
    const [name, other] = [uniqueName(), uniqueName()];
    const client = lendRedis();
    const { commands } = await recordCommands(
      redisUrl(),
      async () => {
        await client.multi().incr(name).exec();
        await client.multi().incr(other).exec();
      },
      { from: name },
    );
    expect(commands).to.deep.equal([['MULTI'], ['INCR', name], ['EXEC']]);
  });

  it('decodes quotes, line breaks and UTF-8 as they were sent', async () => {
    const name = uniqueName();
    const value = 'a "b" \n\r\t\u0007\b é 鍵 x41 ""';
    const { commands } = await recordCommands(redisUrl(), () => lendRedis().set(name, value), { from: name });
    expect(commands).to.deep.equal([['SET', name, value]]);
  });

  it('decodes backslashes and blanks between quotes as they were sent, but for Valkey 8.1.0 and 8.1.1', async function () {
    const name = uniqueName();
    const value = '"a\\" "b\\\\ \\x41 " "';
    const { commands, exact } = await recordCommands(redisUrl(), () => lendRedis().set(name, value), { from: name });
    if (!exact) this.skip(); // valkey-io/valkey issue 2035
    expect(commands).to.deep.equal([['SET', name, value]]);
  });

  it('tells commands without keys when asked', async () => {
    const server = await privateRedis();
    const client = lendRedis({ url: server.url });
    await client.ping();
    const { commands } = await recordCommands(server.url, () => client.script('EXISTS', 'sha'), { keyless: true });
    expect(commands).to.deep.equal([['SCRIPT', 'EXISTS', 'sha']]);
  });

  it('rejects as the work does', async () => {
    const error = await recordCommands(redisUrl(), () => Promise.reject(new Error('boom'))).catch((reason) => reason);
    expect(error).to.be.an('error').with.property('message', 'boom');
  });
});
