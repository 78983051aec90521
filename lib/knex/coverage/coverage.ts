import type { Knex } from 'knex';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import { declaredEntriesOf } from '../../model/declared-entries.js';
import type { OutboxOptions } from '../outbox/location.js';
import { findInstalledOutbox } from '../outbox/installed-outbox.js';
import { findRelation, foreignKeys as keysOfSchemas, type ForeignKey } from '../postgres/catalog.js';
import { checkTriggers } from '../triggers/check-triggers.js';
import { graphFacts } from '../triggers/lookup-graph.js';
import { type InstalledDefinition, installedDefinitions } from '../triggers/trigger-registry.js';
import { inOrder, judge, type ReadTable } from './judge.js';
import { excess } from './excess.js';
import { planWatches } from './planned-watches.js';
import { migrationOf, propose } from './proposal.js';
import { nameOfEntry, type ReadEntry, readEntry, type Sample } from './read-entry.js';
import { readStatements, type ReadStatement } from './read-statements.js';
import type { ReadRelation } from './relations.js';
import type { CoverageFinding, CoverageReport, EntryCoverage } from './report.js';
import { coverageText } from './report-text.js';
import { Routes } from './routes.js';
import { unknownsOf } from './unknowns.js';

export interface CoverageOptions {
  /** The database with the triggers. Its role reads the tables, and may make temporary views (TEMPORARY on the database). */
  readonly db: Knex;
  /**
   * Ids to load, by the names of namespaces and keys: `{ customer: 42, product: 7 }`. A sample serves every entry all of
   * whose ids it names. Different ids need different values, so that a parameter tells which id it is; a loader that asks
   * further for the rows it found needs ids that have rows.
   */
  readonly samples: Sample | readonly Sample[];
  /** Subjects of unknowns that the owner vouches for: `function app.price(integer)`. */
  readonly accept?: readonly string[];
  /** Location of the outbox. */
  readonly outbox?: OutboxOptions;
}

/**
 * Compares what the entries of a cache read with what the installed triggers watch. PostgreSQL says which tables and columns
 * a loader's statements depend on; the loaders run once with the samples, in a read-only transaction.
 *
 *     const report = await coverage(cache, { db, samples: { customer: 42 } });
 *     assert.ok(report.ok, report.text);
 *
 * Leaves nothing behind: each transaction is rolled back. Takes the locks of the loaders' own SELECTs. Throws
 * ConfigurationError, IdError, and errors of the connection.
 */
export async function coverage(cache: object, options: CoverageOptions): Promise<CoverageReport> {
  const declared = declaredEntriesOf(cache);
  const { db, accept = [] } = options;
  const samples = samplesOf(options.samples);
  const entries: ReadEntry[] = [];
  const findings: CoverageFinding[] = [];
  for (const definition of declared.entries) {
    const read = await readEntry(db, definition, samples);
    if (read === undefined) findings.push(noSample(nameOfEntry(definition), definition.idNames));
    else entries.push(read);
  }
  const texts = entries.flatMap(({ statements }) => statements.map(({ sql }) => sql));
  const { statements, relations, foreignKeys } = await readStatements(db, texts);
  const outbox = await findInstalledOutbox(db, options.outbox);
  const definitions = outbox === undefined ? [] : await installedDefinitions(db, outbox, { cache: declared.cache });
  const watched = await tablesOf(db, definitions);
  if (definitions.length > 0) findings.push(...(await altered(db, declared.cache, options.outbox)));

  const reads: ReadTable[] = [];
  for (const entry of entries) {
    findings.push(...unknownsOf(entry, statements, relations));
    const readable = entry.statements.flatMap((statement) => {
      const read = statements.get(statement.sql)!;
      return 'unreadable' in read ? [] : [{ ...read, statement }];
    });
    const routes = new Routes({ ...entry, statements: readable, relations, foreignKeys });
    for (const [oid, columns] of columnsOf(readable)) {
      const relation = relations.get(oid)!;
      if (relation.table === undefined || relation.temporary) continue;
      reads.push({
        ...{ entry: entry.name, lineages: entry.lineages, relation, routes },
        columns: new Set([...columns].map((column) => relation.columns.get(column)!)),
        occurrences: routes.occurrences.filter((occurrence) => occurrence.relation === oid),
      });
    }
  }

  const needed = new Set<ReadRelation>();
  const covered = new Set<ReadTable>();
  for (const read of reads) {
    const on = (relation: ReadRelation) => definitionsOn(relation, definitions, watched);
    const verdict = judge(read, on(read.relation), on);
    findings.push(...verdict.findings);
    if (verdict.findings.some(({ severity }) => severity === 'gap')) needed.add(read.relation);
    else covered.add(read);
  }
  // A sentence serves all entries that read the table.
  const tables = [...new Set(reads.map(({ relation }) => relation))].map((relation) => ({
    relation,
    columns: columnsRead(relation, reads),
    occurrences: reads
      .filter((read) => read.relation === relation)
      .flatMap(({ occurrences, routes }) => occurrences.map((occurrence) => ({ occurrence, routes }))),
    installed: definitionsOn(relation, definitions, watched)[0],
  }));
  const planned =
    needed.size === 0
      ? []
      : planWatches(declared.cache, tables, needed, definitions, {
          keys: await keysOf(db, [...tables.map(({ relation }) => relation), ...definitions]),
          views: (await graphFacts(db, definitions)).views,
        });
  const isVisible = (table: { schema: string | null; table: string }) =>
    [...relations.values()].some((each) => each.visible && each.schema === table.schema && each.name === table.table);
  const judged = [...accepted(merged(findings), accept), ...unusedAccepts(findings, accept)];
  if (!judged.some(({ severity }) => severity === 'unknown')) judged.push(...excess(definitions, watched, reads));
  const proposals = planned.map((watch) => propose(watch, isVisible));
  const report = {
    cache: declared.cache,
    ok: judged.every(({ severity }) => severity === 'note'),
    entries: entries.map((entry) => describeEntry(entry, reads, covered)),
    findings: judged,
    proposals,
    migration: migrationOf(
      declared.cache,
      proposals,
      planned.map(({ relation }) => relation),
    ),
  };
  return { ...report, text: coverageText(report) };
}

function samplesOf(samples: CoverageOptions['samples']): readonly Sample[] {
  const all = Array.isArray(samples) ? (samples as readonly Sample[]) : [samples as Sample];
  const strange = all.find((sample) => typeof sample !== 'object' || sample === null);
  if (all.length > 0 && strange === undefined && samples !== undefined && samples !== null) return all;
  throw new ConfigurationError(
    `\`samples\` must be ids by the names of namespaces and keys, or a list of such objects, but got ${describe(samples)}. ` +
      'Pass ids that have rows: `{ customer: 42 }`.',
  );
}

function noSample(entry: string, names: readonly string[]): CoverageFinding {
  return {
    ...{ severity: 'unknown', kind: 'no sample', entries: [entry], subject: `entry ${entry}` },
    message: `No sample names all ids of ${entry} (${names.join(', ')}), so its loader did not run.`,
    remedy: `Add \`{ ${names.map((name) => `${name}: ...`).join(', ')} }\` to \`samples\`.`,
  };
}

/** Definitions whose triggers are not there as they were installed: what they name is not watched. */
async function altered(db: Knex, cache: string, outbox: OutboxOptions | undefined): Promise<CoverageFinding[]> {
  const problems = await checkTriggers(db, outbox);
  return problems
    .filter((problem) => problem.cache === cache)
    .map(({ table, message, remedy }) => ({
      ...{ severity: 'gap', kind: 'triggers not as installed', entries: [], subject: table, message, remedy },
    }));
}

function unusedAccepts(findings: readonly CoverageFinding[], accept: readonly string[]): CoverageFinding[] {
  return accept
    .filter((subject) => !findings.some((finding) => finding.severity === 'unknown' && finding.subject === subject))
    .map((subject) => ({
      ...{ severity: 'note', kind: 'accepted and not found', entries: [], subject },
      message: `\`accept\` names ${subject}, which is not among the unknowns.`,
      remedy: 'Leave it out, or name the `subject` of an unknown.',
    }));
}

/** The oids of the watched tables, by definition. */
async function tablesOf(
  db: Knex,
  definitions: readonly InstalledDefinition[],
): Promise<Map<InstalledDefinition, string>> {
  const tables = new Map<InstalledDefinition, string>();
  for (const definition of definitions) {
    const relation = await findRelation(db, definition.schema, definition.table);
    if (relation !== undefined) tables.set(definition, relation.oid);
  }
  return tables;
}

/** The definitions on the table, or on one that it is a partition of. */
function definitionsOn(
  relation: ReadRelation,
  definitions: readonly InstalledDefinition[],
  watched: ReadonlyMap<InstalledDefinition, string>,
): InstalledDefinition[] {
  return definitions.filter((definition) => relation.lineage.includes(watched.get(definition) ?? ''));
}

function keysOf(db: Knex, tables: readonly { readonly schema: string }[]): Promise<ForeignKey[]> {
  return keysOfSchemas(db, [...new Set(tables.map(({ schema }) => schema))]);
}

function columnsOf(statements: readonly ReadStatement[]): Map<string, Set<number>> {
  const all = new Map<string, Set<number>>();
  for (const { columns } of statements) {
    for (const [relation, numbers] of columns) all.set(relation, new Set([...(all.get(relation) ?? []), ...numbers]));
  }
  return all;
}

function columnsRead(relation: ReadRelation, reads: readonly ReadTable[]): Set<string> {
  return new Set(reads.filter((read) => read.relation === relation).flatMap((read) => [...read.columns]));
}

/** One finding for all entries that it concerns. */
function merged(findings: readonly CoverageFinding[]): CoverageFinding[] {
  const all = new Map<string, CoverageFinding>();
  for (const finding of findings) {
    const key = JSON.stringify([finding.kind, finding.subject, finding.message]);
    const before = all.get(key);
    const columns =
      finding.columns === undefined ? {} : { columns: [...new Set([...(before?.columns ?? []), ...finding.columns])] };
    all.set(key, { ...finding, ...columns, entries: [...new Set([...(before?.entries ?? []), ...finding.entries])] });
  }
  return [...all.values()];
}

function accepted(findings: readonly CoverageFinding[], accept: readonly string[]): CoverageFinding[] {
  return findings.map((finding) =>
    finding.severity === 'unknown' && accept.includes(finding.subject)
      ? { ...finding, severity: 'note', kind: 'accepted', remedy: 'The owner vouches for it (`accept`).' }
      : finding,
  );
}

function describeEntry(entry: ReadEntry, reads: readonly ReadTable[], covered: ReadonlySet<ReadTable>): EntryCoverage {
  return {
    entry: entry.name,
    statements: entry.statements.map(({ sql }) => sql),
    rows: entry.rows,
    tables: reads
      .filter((read) => read.entry === entry.name)
      .map((read) => ({
        table: read.relation.shown,
        columns: inOrder(read.relation, read.columns),
        covered: covered.has(read),
      })),
  };
}
