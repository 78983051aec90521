import {
  hopsOf,
  positionOf,
  ROW_OPERATIONS,
  type RowOperation,
  type TriggerBump,
  watchedColumns,
} from '../triggers/trigger-definition.js';
import type { InstalledDefinition } from '../triggers/trigger-registry.js';
import type { Occurrence } from './query-graph.js';
import type { ReadRelation } from './relations.js';
import type { CoverageFinding } from './report.js';
import type { Route, Routes } from './routes.js';

/** A table that an entry reads, with what the entry needs of its triggers. */
export interface ReadTable {
  readonly entry: string;
  readonly lineages: readonly (readonly string[])[];
  readonly relation: ReadRelation;
  /** The columns that the statements depend on. */
  readonly columns: ReadonlySet<string>;
  readonly occurrences: readonly Occurrence[];
  readonly routes: Routes;
}

export interface Verdict {
  readonly findings: readonly CoverageFinding[];
  readonly routes: readonly (Route | undefined)[];
}

/**
 * `proven`: the bump reaches the entry, by the query's own conditions. `assumed`: the query does not show otherwise.
 * `elsewhere`: it bumps a scope that the entry does not depend on. `other column`, `not looked up`: the query shows other ids.
 */
type Reach = 'proven' | 'assumed' | 'other column' | 'not looked up' | 'elsewhere';

/** Holds a table that an entry reads against the triggers on it. */
export function judge(
  read: ReadTable,
  definitions: readonly InstalledDefinition[],
  definitionsOf: (relation: ReadRelation) => readonly InstalledDefinition[],
): Verdict {
  const { relation, entry, columns } = read;
  const found = (finding: Omit<CoverageFinding, 'severity' | 'entries' | 'subject'>): CoverageFinding => ({
    ...{ severity: 'gap', entries: [entry], subject: relation.shown },
    ...finding,
  });
  const routes = read.occurrences.map((occurrence) => read.routes.from(occurrence));
  if (definitions.length === 0) {
    const message = `No trigger watches ${relation.shown}.`;
    return {
      findings: [found({ kind: 'table not watched', columns: inOrder(relation, columns), message, remedy: PASTE })],
      routes,
    };
  }
  const findings: CoverageFinding[] = [];
  const reaching = new Set<InstalledDefinition>();
  let assumed = false;
  for (const [i, occurrence] of read.occurrences.entries()) {
    const reaches = definitions.map((definition) => ({
      definition,
      reach: reachOf(definition, occurrence, routes[i], read),
    }));
    const seen = reaches.filter(({ reach }) => reach === 'proven' || reach === 'assumed');
    for (const { definition } of seen) reaching.add(definition);
    if (seen.length === 0)
      findings.push(
        found(
          unreached(
            reaches.map(({ reach }) => reach),
            routes[i],
            read,
          ),
        ),
      );
    else if (!seen.some(({ reach }) => reach === 'proven')) assumed = true;
  }
  if (reaching.size === 0 && findings.length > 0) return { findings, routes };
  // A table without an occurrence is known by its dependencies alone.
  const watching = reaching.size > 0 ? [...reaching] : definitions;
  const operations = ROW_OPERATIONS.filter(
    (operation) =>
      !watching.some((definition) => definition.operations.includes(operation)) &&
      (operation !== 'update' || columns.size > 0),
  );
  if (operations.length > 0 && !isToldByOthers(operations, read, definitionsOf)) {
    const message = `The triggers on ${relation.shown} leave out ${list(operations)}.`;
    findings.push(found({ kind: 'operation left out', operations, message, remedy: PASTE }));
  }
  const updates = watching.filter((definition) => definition.operations.includes('update')).map(watchedColumns);
  const missing =
    updates.includes(null) || updates.length === 0
      ? []
      : inOrder(relation, columns).filter((column) => !updates.some((watched) => watched!.includes(column)));
  if (missing.length > 0) {
    const message = `\`columns\` of the triggers on ${relation.shown} leave out ${list(missing)}, which the query depends on.`;
    findings.push(found({ kind: 'column left out', columns: missing, message, remedy: PASTE }));
  }
  if (assumed) {
    const message = `The query does not show that a row of ${relation.shown} belongs to the scope that its triggers bump; they are taken at their word.`;
    const remedy = 'A spec that changes a row and reads the entry can show it.';
    findings.push({ ...found({ kind: 'ids not derived', message, remedy }), severity: 'note' });
  }
  return { findings, routes };
}

/** Whether other tables tell of the inserts and deletes that this one's triggers leave out. */
function isToldByOthers(
  operations: readonly RowOperation[],
  { occurrences, routes }: ReadTable,
  definitionsOf: (relation: ReadRelation) => readonly InstalledDefinition[],
): boolean {
  const isWatched = (relation: ReadRelation) =>
    ROW_OPERATIONS.every((operation) => definitionsOf(relation).some((one) => one.operations.includes(operation)));
  if (operations.includes('update') || occurrences.length === 0) return false;
  return occurrences.every((occurrence) => routes.referring(occurrence).some(isWatched));
}

const PASTE = 'Paste the migration below.';

function reachOf(
  { bumps }: InstalledDefinition,
  occurrence: Occurrence,
  route: Route | undefined,
  read: ReadTable,
): Reach {
  const reaches = bumps.map((bump) => reachOfBump(bump, occurrence, route, read));
  return ORDER.find((reach) => reaches.includes(reach)) ?? 'elsewhere';
}

/** From the best to the worst. */
const ORDER: readonly Reach[] = ['proven', 'assumed', 'not looked up', 'other column', 'elsewhere'];

function reachOfBump(bump: TriggerBump, occurrence: Occurrence, route: Route | undefined, read: ReadTable): Reach {
  const names = bump.ids.map(({ namespace }) => namespace);
  const { routes, lineages } = read;
  if (!lineages.some((lineage) => names.every((name, i) => lineage[i] === name))) return 'elsewhere';
  /** The occurrences at each table on the way. */
  const places: Occurrence[][] = [[occurrence]];
  for (const { schema, table, on } of hopsOf(bump)) {
    const to = places
      .at(-1)!
      .flatMap((from) => routes.joined(occurrence, from, { schema: schema ?? '', name: table }, on));
    places.push([...new Set(to)]);
  }
  // The rows that meet a condition are not those of the query, as far as is seen here.
  let reach: Reach = bump.when === undefined ? 'proven' : 'assumed';
  for (const id of bump.ids) {
    const { namespace, column, of } = id;
    const holders = places[positionOf(bump, id)]!;
    if (holders.some((holder) => routes.columnsOf(holder, namespace, occurrence).includes(column))) continue;
    if (of === 'looked up' || id.expression) {
      reach = 'assumed';
      continue;
    }
    if (routes.columnsOf(occurrence, namespace).length > 0) return 'other column';
    const derived = route?.ids.find((id) => id.namespace === namespace);
    if (derived?.of === 'looked up' && route?.byForeignKey === false) return 'not looked up';
    reach = 'assumed';
  }
  return reach;
}

function unreached(
  reaches: readonly Reach[],
  route: Route | undefined,
  { relation, entry, lineages }: ReadTable,
): Omit<CoverageFinding, 'severity' | 'entries' | 'subject'> {
  if (reaches.includes('not looked up')) {
    const tables = route!.hops.map((hop) => hop.relation.shown);
    const message = `A row of ${relation.shown} concerns ${entry} by way of ${tables.join(' and ')}, which the triggers on ${relation.shown} do not look up.`;
    return { kind: 'join not looked up', message, remedy: PASTE };
  }
  if (reaches.includes('other column')) {
    const ids = route?.ids.map(({ namespace, column }) => `${namespace} by ${column}`) ?? [];
    const message = `The query names ${ids.join(', ') || 'the ids by other columns'}; the triggers on ${relation.shown} take ids from other columns.`;
    return { kind: 'id of another column', message, remedy: PASTE };
  }
  const scopes = lineages.map((lineage) => lineage.join('/') || 'global');
  const message = `The triggers on ${relation.shown} bump no scope that ${entry} depends on (${[...new Set(scopes)].join(', ')}).`;
  return { kind: 'scope not bumped', message, remedy: PASTE };
}

export function inOrder(relation: ReadRelation, columns: ReadonlySet<string>): string[] {
  return [...relation.columns.values()].filter((column) => columns.has(column));
}

export function list(names: readonly string[]): string {
  return names.length <= 1 ? (names[0] ?? '') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}
