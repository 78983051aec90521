/** One call after another of a store, in each state of a slot on its way between two primaries. */
import { expect } from 'chai';
import { formatGeneration, nonce, parseGeneration } from '../../../../lib/model/generation.js';
import { type GenerationKey, keyPrefix } from '../../../../lib/model/key.js';
import { Partitions } from '../../../../lib/ports/partitions.js';
import type { StorePartition } from '../../../../lib/ports/store.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { AskedStore } from '../../../ports/asked-store.js';
import { recordCommands } from '../../../support/commands.js';
import { lend } from '../../../support/lenders.js';
import { privateRedisCluster, type RedisCluster, type Resharding } from '../../../support/redis-cluster.js';
import { uniqueName } from '../../../support/redis.js';
import { rejection } from '../../../support/rejection.js';

const MOVING =
  'The slot of these keys is being moved to another node of the Redis Cluster, and neither node has all of them; ' +
  'nothing was executed. Wait until the slot has moved.';

describe('a store, while the slot of its keys is moved', () => {
  let cluster: RedisCluster;
  let move: Resharding;
  let asked: AskedStore<StorePartition>;
  /** One generation that has moved, one that has not, and a key without one. */
  let moved: { key: GenerationKey; token: string };
  let left: { key: GenerationKey; token: string };
  let missing: GenerationKey;

  before(async () => void (cluster = await privateRedisCluster({ replicas: 0 })));

  beforeEach(async () => {
    const name = uniqueName();
    const store = redisStore(cluster.client(), { partitions: 1 });
    lend({ what: 'the store', close: () => store.close() });
    asked = new AskedStore(new Partitions(store, name).first.store, name);
    [moved, left, missing] = [await asked.minted(), await asked.minted(), asked.generationKey()];
    move = await cluster.reshard(keyPrefix(name));
    await move.begin();
    await move.move(moved.key);
  });

  afterEach(async () => {
    await move.rest();
    await move.end();
    await cluster.formed();
  });

  /** The value of a key at a node, wherever the slot is. */
  const at = async (node: Resharding['source'], key: string) => {
    await node.admin.call('ASKING');
    return node.admin.get(key).catch(() => null);
  };
  const bumpsOf = (value: string | null) => parseGeneration(value!)!.bumps;

  it('bumps each key where it is, each with a nonce of its own, and leaves a missing one missing', async () => {
    const attempt = nonce();
    const [one, two, three] = await asked.bump([moved.key, left.key, missing], attempt);
    expect(await at(move.target, moved.key)).to.equal(one);
    expect(await at(move.source, left.key)).to.equal(two);
    expect(three).to.equal('missing');
    expect([one, two].map((value) => bumpsOf(value!))).to.deep.equal([1, 1]);
    expect(new Set([one, two, formatGeneration(1, attempt)])).to.have.property('size', 3);
    expect(await at(move.target, missing)).to.equal(null);
  });

  it('bumps a single key that has moved', async () => {
    const [bumped] = await asked.bump([moved.key]);
    expect(await at(move.target, moved.key)).to.equal(bumped);
    expect(await at(move.source, moved.key)).to.equal(null);
  });

  it('bumps at a target that has not seen the script, and after it has forgotten it', async () => {
    for (let round = 1; round <= 2; round++) {
      await move.target.admin.script('FLUSH');
      const [bumped] = await asked.bump([moved.key]);
      expect(bumpsOf(bumped!)).to.equal(round);
    }
  });

  it('quarantines and lifts each key where it is', async () => {
    const token = nonce();
    const keys = [moved.key, left.key, missing];
    expect(await asked.quarantine(keys, token)).to.equal(0);
    expect(await at(move.target, moved.key)).to.match(new RegExp(`^0!${token}@`));
    expect(await at(move.target, missing)).to.match(new RegExp(`^0!${token}@`));
    expect(await at(move.source, left.key)).to.match(new RegExp(`^0!${token}@`));
    expect(await asked.quarantine(keys, token)).to.equal(3);
    expect(await asked.lift(keys, token)).to.deep.equal(['kept', 'kept', 'kept']);
    expect(bumpsOf(await at(move.target, moved.key))).to.equal(1);
    expect(bumpsOf(await at(move.source, left.key))).to.equal(1);
  });

  it('reads what is still whole, and rejects the rest without a command to the target', async () => {
    expect(await asked.text(left.key)).to.equal(left.token);
    const { commands } = await recordCommands(move.target.server.url, async () => {
      for (const keys of [[left.key, moved.key], [moved.key], [left.key, missing], [missing]]) {
        const error = await rejection(asked.read(...keys));
        expect(error).to.include({ sent: false, answered: true, message: MOVING });
      }
    });
    expect(commands).to.deep.equal([]);
  });

  it('mints nothing, and so no generation beside one that is on its way', async () => {
    for (const keys of [[missing], [moved.key], [left.key, missing]]) {
      expect(await rejection(asked.mint(keys))).to.include({ sent: false, answered: true, message: MOVING });
    }
    expect(await at(move.source, missing)).to.equal(null);
    expect(await at(move.target, missing)).to.equal(null);
    expect(await at(move.target, moved.key)).to.equal(moved.token);
  });

  it('goes on with the new owner once the slot has moved, after one redirection', async () => {
    await move.rest();
    await move.end();
    expect(await asked.text(moved.key)).to.equal(moved.token);
    expect(await asked.text(left.key)).to.equal(left.token);
    const { commands } = await recordCommands(move.source.server.url, () => asked.bump([moved.key, left.key]));
    expect(commands).to.deep.equal([]);
  });

  it('goes back to the source if the move is given up', async () => {
    await asked.bump([moved.key]);
    // The key goes back first, as redis-cli --cluster fix does.
    await move.source.cluster('SETSLOT', move.slot, 'STABLE');
    await move.target.admin.call('MIGRATE', '127.0.0.1', move.source.port, '', 0, 5_000, 'KEYS', moved.key);
    await move.target.cluster('SETSLOT', move.slot, 'STABLE');
    expect(bumpsOf((await asked.text(moved.key))!)).to.equal(1);
    expect((await asked.bump([moved.key, left.key])).map((value) => bumpsOf(value))).to.deep.equal([2, 1]);
    await move.begin();
  });
});
