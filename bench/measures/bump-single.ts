import type { Bench, Measure } from '../bench.js';
import { countCommands } from '../count.js';
import { compare } from '../measure.js';
import { populate, type Population } from '../population.js';
import type { Row } from '../row.js';
import { connect, threeLevels, TTL_MS } from '../workload.js';

/**
 * A bump of global, beside one SET, above a thousand and above a million live entries: the worse of the two.
 *
 * Before each bump, and outside the time, the generation gets its old value back: that makes all entries live again,
 * so each bump makes that many unreachable. The plain side pauses for the same SET.
 */
export const bumpSingle: Measure = async (bench) => {
  const few = await row(bench, await populate(bench.redisUrl, 'bump-single', 100, 10));
  const many = await row(bench, await bench.million());
  const worse = few.ratio > many.ratio ? few : many;
  return [few, many, { ...worse, name: 'bump.single', limit: { ratio: 1.5, commands: 1 } }];
};

async function row({ plan }: Bench, { url, name, entries, root }: Population): Promise<Row> {
  const redis = await connect(url);
  const levels = threeLevels(url, name);
  const revive = () => redis.set(root.key, root.token, 'PX', 2 * TTL_MS);
  const find = async () => (await levels.workflows.lookup({ detector: 1, environment: 1 })).outcome;
  const key = root.key.replace('gencache', 'plainset');
  const bump = () => levels.cache.bump();
  try {
    // Connects: a connection's own commands are none of a bump's.
    await bump();
    await revive();
    const commands = await countCommands(url, bump);
    const bumped = await find();
    await revive();
    const revived = await find();
    if (bumped !== 'miss' || revived !== 'hit')
      throw new Error(`A bump makes live entries miss: ${revived}, ${bumped}.`);
    const comparison = await compare(
      { beforeEach: revive, run: bump },
      { beforeEach: revive, run: () => redis.set(key, root.token) },
      plan,
    );
    const shown = `10^${Math.round(Math.log10(entries))}`;
    return {
      name: `bump.single.${shown}`,
      subject: `bump above ${shown} live entries`,
      baseline: 'plain SET of as many bytes',
      ...comparison,
      commands,
    };
  } finally {
    redis.disconnect();
    await levels.close();
  }
}
