/**
 * The sentences of a migration as a whole. Each lookup of a proposed sentence must find its scopes by the rule of
 * `triggers/lookup-graph.ts`, among all triggers of the cache as they are after the migration.
 *
 * At first each sentence has the best route of each occurrence of its table in a query. As long as a lookup has a fault, one
 * of these is done: a table on its way that has other triggers gets a sentence, too; or the occurrence gets its next route;
 * or, without a further one, it bumps everything. None of these is undone, so the search ends.
 */
import { type GraphFacts, faultyLookups, type LookupFault } from '../triggers/lookup-graph.js';
import { hopsOf, lookedUpColumns, ROW_OPERATIONS, type TriggerBump } from '../triggers/trigger-definition.js';
import type { TriggerDefinition } from '../triggers/trigger-definition.js';
import type { InstalledDefinition } from '../triggers/trigger-registry.js';
import type { Occurrence } from './query-graph.js';
import type { ReadRelation } from './relations.js';
import { bumpBy, type Route, type Routes } from './routes.js';

/** A table that entries read. */
export interface WatchableTable {
  readonly relation: ReadRelation;
  /** The columns that some entry reads. */
  readonly columns: ReadonlySet<string>;
  readonly occurrences: readonly { readonly occurrence: Occurrence; readonly routes: Routes }[];
  /** The definition that a sentence takes the place of. */
  readonly installed: InstalledDefinition | undefined;
}

/** A table that needs a sentence, and the definition that the sentence installs. */
export interface PlannedWatch extends WatchableTable {
  readonly definition: TriggerDefinition;
  readonly choices: readonly ChosenRoute[];
  /** Whether it bumps everything for a lookup of other triggers that looks its rows up. */
  readonly forOthers: boolean;
}

/** The route of one occurrence; undefined where it bumps everything, without a route or with faulty ones alone. */
export interface ChosenRoute {
  readonly occurrence: Occurrence;
  readonly routes: Routes;
  readonly route: Route | undefined;
}

/** Routes that are tried for one occurrence. */
const ROUTES_MAX = 50;
const EVERYTHING: TriggerBump = { lookUp: null, ids: [] };

/**
 * Plans a sentence for each needed table, in an order of installation: after the tables that it looks up. `facts`: of all
 * tables here and of the installed definitions.
 */
export function planWatches(
  cache: string,
  tables: readonly WatchableTable[],
  needed: ReadonlySet<ReadRelation>,
  installed: readonly InstalledDefinition[],
  facts: GraphFacts,
): PlannedWatch[] {
  const plan = new Plan(cache, tables, installed);
  for (const table of tables) if (needed.has(table.relation)) plan.add(table);
  while (plan.mend(faultyLookups(plan.definitions(), facts)));
  return plan.inOrder();
}

/** A route among those of an occurrence that are left to try. */
class Choice implements ChosenRoute {
  readonly occurrence: Occurrence;
  readonly routes: Routes;
  route: Route | undefined;
  readonly #others: Iterator<Route, void>;
  #tried = 0;

  constructor({ occurrence, routes }: WatchableTable['occurrences'][number]) {
    this.occurrence = occurrence;
    this.routes = routes;
    this.#others = routes.routesFrom(occurrence);
    this.advance();
  }

  get bump(): TriggerBump {
    return this.route === undefined ? EVERYTHING : bumpBy(this.route);
  }

  advance(): void {
    const next = this.#tried++ < ROUTES_MAX ? this.#others.next() : undefined;
    this.route = next?.value ?? undefined;
  }
}

interface Watch {
  readonly table: WatchableTable;
  readonly choices: readonly Choice[];
  forOthers: boolean;
}

class Plan {
  readonly #cache: string;
  readonly #tables: readonly WatchableTable[];
  readonly #installed: readonly InstalledDefinition[];
  readonly #watches: Watch[] = [];

  constructor(cache: string, tables: readonly WatchableTable[], installed: readonly InstalledDefinition[]) {
    this.#cache = cache;
    this.#tables = tables;
    this.#installed = installed;
  }

  add(table: WatchableTable): void {
    this.#watches.push({ table, choices: table.occurrences.map((each) => new Choice(each)), forOthers: false });
  }

  /** All definitions of the cache after the migration. */
  definitions(): TriggerDefinition[] {
    const replaced = new Set(this.#watches.map(({ table }) => table.installed));
    return [
      ...this.#watches.map((watch) => this.#definition(watch)),
      ...this.#installed.filter((definition) => !replaced.has(definition)),
    ];
  }

  /** Changes what leads to one of the faults. Returns whether it has changed anything. */
  mend(faulty: ReadonlyMap<TriggerBump, readonly LookupFault[]>): boolean {
    for (const [bump, faults] of faulty) {
      const choice = this.#watches.flatMap(({ choices }) => choices).find((one) => isSame(one.bump, bump));
      const isFaulty = ({ relation: { schema, name } }: WatchableTable) =>
        faults.some(({ at }) => at.schema === schema && at.table === name);
      const unplanned = this.#tables.find(
        (table) => isFaulty(table) && !this.#watches.some((watch) => watch.table === table),
      );
      const planned = this.#watches.find((watch) => isFaulty(watch.table) && !watch.forOthers);
      if (unplanned !== undefined && (choice !== undefined || this.#isInstalledAgain(bump))) this.add(unplanned);
      else if (choice !== undefined) choice.advance();
      else if (planned !== undefined) planned.forOthers = true;
      else continue;
      return true;
    }
    return false;
  }

  inOrder(): PlannedWatch[] {
    const left = new Set(this.#watches);
    const ordered: PlannedWatch[] = [];
    while (left.size > 0) {
      const next = [...left].find((watch) => this.#bumpsOf(watch).every((bump) => !looksUp(bump, left, watch)));
      const watch = next ?? [...left][0]!;
      left.delete(watch);
      const { table, choices, forOthers } = watch;
      ordered.push({ ...table, choices, forOthers, definition: this.#definition(watch) });
    }
    return ordered;
  }

  /** Whether a bump of installed triggers is installed again by the migration. */
  #isInstalledAgain(bump: TriggerBump): boolean {
    return this.#watches.some(({ table }) => table.installed?.bumps.includes(bump) === true);
  }

  #definition(watch: Watch): TriggerDefinition {
    const { relation, columns, installed } = watch.table;
    const { schema, name, truncate, limit, subscriber } = installed ?? DEFAULTS;
    const lookedUp = this.#watches
      .flatMap((other) => this.#bumpsOf(other))
      .flatMap((bump) => columnsOf(bump, relation));
    const wanted = new Set([...columns, ...lookedUp, ...(installed?.columns ?? [])]);
    const all = [...relation.columns.values()];
    const named = all.filter((column) => wanted.has(column));
    return {
      cache: this.#cache,
      schema: schema ?? relation.schema,
      table: installed?.table ?? relation.name,
      name,
      operations: ROW_OPERATIONS,
      columns: installed?.columns === null || named.length === 0 || named.length === all.length ? null : named,
      ...{ truncate, limit, subscriber },
      bumps: this.#bumpsOf(watch),
    };
  }

  /** The installed ones, and one for each occurrence; each once. */
  #bumpsOf({ table, choices, forOthers }: Watch): TriggerBump[] {
    const bumps: TriggerBump[] = [...(table.installed?.bumps ?? [])];
    for (const bump of [...choices.map((choice) => choice.bump), ...(forOthers ? [EVERYTHING] : [])]) {
      if (!bumps.some((known) => isSame(known, bump))) bumps.push(bump);
    }
    return bumps;
  }
}

const DEFAULTS = { schema: undefined, name: 'default', truncate: '', limit: 1_000, subscriber: false } as const;

function columnsOf(bump: TriggerBump, { schema, name }: ReadRelation): string[] {
  return hopsOf(bump).flatMap((hop, i) =>
    hop.schema === schema && hop.table === name ? lookedUpColumns(bump, i + 1) : [],
  );
}

function looksUp(bump: TriggerBump, others: ReadonlySet<Watch>, own: Watch): boolean {
  return hopsOf(bump).some(({ schema, table }) =>
    [...others].some((one) => one !== own && one.table.relation.schema === schema && one.table.relation.name === table),
  );
}

/** JSON of installed bumps may have their fields in another order. */
function isSame(one: TriggerBump, other: TriggerBump): boolean {
  return one === other || textOf(one) === textOf(other);
}

function textOf(bump: TriggerBump): string {
  const hops = hopsOf(bump).map(({ schema, table, on }) => [
    schema,
    table,
    on.map((pair) => [pair.column, pair.changed]),
  ]);
  const ids = bump.ids.map(({ namespace, column, of, hop, expression }) => [namespace, column, of, hop, expression]);
  return JSON.stringify([hops, ids, bump.when]);
}
