import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import type { OutboxOptions } from '../outbox/location.js';
import { checkCacheName } from '../../model/cache-name.js';
import { type Hooks, migrationHooks } from './hooks.js';

export type MigrationBumps = OutboxOptions &
  (
    | { /** The cache that migrations bump. */ readonly cache: string; readonly caches?: never }
    | { readonly cache?: never; /** Several caches: one event for each. */ readonly caches: readonly string[] }
  );

/**
 * Wraps a knexfile so that its migrations bump the caches, after their commit, through the outbox (`hooks.ts`):
 *
 *     export default withGenerations({ client: 'pg', connection, migrations: { ... } }, { cache: 'shop' });
 *
 * Takes any export of a knexfile (a configuration, several by environment, a function or a promise of either) and returns
 * the same with lifecycle hooks added. The owner's own hooks still run. `schema` is the outbox's. Hooks that are passed to
 * `db.migrate.latest({ ... })` replace those of the configuration, including these; the trigger on the migrations table
 * (`migrations-trigger.ts`) covers such calls, and other tools.
 *
 * Throws ConfigurationError. Opens no connection: migrations of a fresh test database do not need Redis.
 */
export function withGenerations<Knexfile extends object>(knexfile: Knexfile, options: MigrationBumps): Knexfile {
  const caches = (options.caches ?? [options.cache]).map(checkCacheName);
  const wrap = (found: unknown): unknown => {
    if (typeof found === 'function') {
      return (...args: unknown[]) => wrap((found as (...args: unknown[]) => unknown)(...args));
    }
    if (!isObject(found)) throw noKnexfile(found);
    if ('then' in found) return (found as Promise<unknown>).then(wrap);
    // Knex takes the configuration of the environment if there is one, else the whole object: an object may be both.
    const byEnvironment = Object.entries(found).map(([name, value]) => [
      name,
      isConfiguration(value) ? hooked(value) : value,
    ]);
    const wrapped = Object.fromEntries(byEnvironment) as object;
    return byEnvironment.some(([, value]) => isConfiguration(value)) && !isConfiguration(found)
      ? wrapped
      : hooked(wrapped);
  };
  const hooked = (configuration: Configuration): Configuration => {
    const { migrations = {} } = configuration;
    return { ...configuration, migrations: { ...migrations, ...migrationHooks(caches, options, migrations) } };
  };
  return wrap(knexfile) as Knexfile;
}

interface Configuration {
  readonly migrations?: Hooks;
}

/** Each configuration of Knex has one of these, except where the options of the command line replace it. */
const OF_CONFIGURATIONS = ['client', 'dialect', 'connection', 'migrations'];

function isConfiguration(value: unknown): value is Configuration {
  return isObject(value) && OF_CONFIGURATIONS.some((name) => name in value);
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function noKnexfile(found: unknown): ConfigurationError {
  return new ConfigurationError(
    'A knexfile must be a configuration, several by environment, or a function or promise of either, but got ' +
      `${describe(found)}. Pass the export of the knexfile to withGenerations.`,
  );
}
