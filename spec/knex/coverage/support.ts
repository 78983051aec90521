import type { Knex } from 'knex';
import { GenerationalCache, memoryStore } from '../../../lib/index.js';
import { type CoverageFinding, type CoverageReport, knexSource, type KnexContext } from '../../../lib/knex/index.js';
import { lend } from '../../support/lenders.js';
import { uniqueName } from '../../support/redis.js';

/** A cache that declares entries on this database; closed after the spec. */
export function lendKnexCache(db: Knex): GenerationalCache<KnexContext, Knex.Transaction> {
  const cache = new GenerationalCache({ name: uniqueName(), store: memoryStore(), source: knexSource(db) });
  lend({ what: `the cache ${cache.name}`, close: () => cache.close() });
  return cache;
}

/** `gap table not watched: product (id, name)` */
export function summary({ findings }: CoverageReport, severities: readonly string[] = ['gap', 'unknown']): string[] {
  return findings.filter(({ severity }) => severities.includes(severity)).map(line);
}

function line({ severity, kind, subject, columns, operations }: CoverageFinding): string {
  const list = columns ?? operations;
  return `${severity} ${kind}: ${subject}${list === undefined ? '' : ` (${list.join(', ')})`}`;
}

/** Runs the migration that a report proposes. */
export async function runMigration(migration: string, db: Knex): Promise<void> {
  const { transformSync } = await import('esbuild');
  const library = (await import('../../../lib/knex/index.js')) as Record<string, unknown>;
  const { code } = transformSync(migration, { loader: 'ts', format: 'cjs' });
  const module = { exports: {} as { up(db: Knex): Promise<void> } };
  // oxlint-disable-next-line no-implied-eval -- the text is the migration that a user pastes
  new Function('module', 'exports', 'require', code)(module, module.exports, (name: string) => {
    if (name === 'gencache/knex') return library;
    throw new Error(`The migration imports ${name}`);
  });
  await module.exports.up(db);
}
