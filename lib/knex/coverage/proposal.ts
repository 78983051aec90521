import type { InstalledDefinition } from '../triggers/trigger-registry.js';
import { hopsOf, type IdColumn, type TableLookup } from '../triggers/trigger-definition.js';
import type { ReadRelation } from './relations.js';
import type { Proposal } from './report.js';
import type { Route } from './routes.js';

/** A table that needs a sentence, and all that is known of it. */
export interface NeededWatch {
  readonly relation: ReadRelation;
  /** The columns that some entry reads. */
  readonly columns: ReadonlySet<string>;
  /** For each occurrence in a query the route to its scope; undefined where none was derived. */
  readonly routes: readonly (Route | undefined)[];
  /** The definition that the sentence takes the place of. */
  readonly installed: InstalledDefinition | undefined;
  /** Whether the search path finds a table, so that its name needs no schema. */
  readonly isVisible: (table: { readonly schema: string | null; readonly table: string }) => boolean;
}

/** The sentence to paste for a table. */
export function propose(cache: string, { relation, columns, routes, installed, isVisible }: NeededWatch): Proposal {
  const open: string[] = [];
  const notes: string[] = [];
  const bumps = new Set<string>();
  for (const bump of installed?.bumps ?? []) {
    const hops = hopsOf(bump).map((hop) => (isVisible(hop) ? { ...hop, schema: null } : hop));
    bumps.add(bumpText(hops, bump.ids, bump.when));
  }
  for (const route of routes) bumps.add(bumpOf(route, relation, open, notes));
  const options = [`cache: ${text(cache)}`];
  const schema = installed === undefined ? (relation.visible ? undefined : relation.schema) : installed.schema;
  if (schema !== undefined && !relation.visible) options.push(`schema: ${text(schema)}`);
  if (installed !== undefined && installed.name !== 'default') options.push(`name: ${text(installed.name)}`);
  if (installed !== undefined && installed.truncate !== '') options.push(`truncate: ${text(installed.truncate)}`);
  if (installed !== undefined && installed.limit !== 1_000) options.push(`limit: ${installed.limit}`);
  if (installed?.subscriber === true) options.push('subscriber: true');
  const all = [...relation.columns.values()];
  const needed = all.filter((column) => columns.has(column) || installed?.columns?.includes(column) === true);
  if (installed?.columns !== null && needed.length > 0 && needed.length < all.length) {
    options.push(`columns: [${needed.map(text).join(', ')}]`);
  }
  const sentence = [
    ...new Set([...open, ...notes].map((line) => `// ${line}`)),
    `await onChangeOf(db, ${text(installed?.table ?? relation.name)}, ${optionsText(options)})`,
    ...[...bumps].map((bump) => indented(bump)),
    '  .install();',
  ];
  return { table: relation.shown, sentence: sentence.join('\n'), open, replaces: installed !== undefined };
}

/** `.bump({ customer: 'customer_id' })`; adds to `open` where the owner must look, and to `notes` where a bump is wide. */
function bumpOf(route: Route | undefined, relation: ReadRelation, open: string[], notes: string[]): string {
  if (route === undefined) {
    open.push(
      `FILL IN: the query does not show which scope a row of ${relation.shown} belongs to. Until then each change bumps everything.`,
    );
    return '.bump({})';
  }
  // Whether tables on the way bump far enough up is theirs to say, when all of them are installed.
  if (route.hops.length > 1) {
    const chain = [relation.shown, ...route.hops.map((each) => each.relation.shown)].join(' -> ');
    open.push(`FILL IN: the scope is ${route.hops.length} look-ups away (${chain}), by`);
    for (const line of bumpText(lookUpsOf(route), route.ids).split('\n')) open.push(`  ${line}`);
    open.push('  with further ids of the tables on the way by lookedUp(). Until then each change bumps everything.');
    return '.bump({})';
  }
  const [hop] = route.hops;
  if (route.byForeignKey) {
    open.push(
      `CHECK: no statement joins ${relation.shown}; its foreign key${hop === undefined ? '' : ` to or beside ${hop.relation.shown}`} stands in for that.`,
    );
  }
  if (!route.complete) {
    const names = route.ids.map(({ namespace }) => namespace).join(', ');
    notes.push(`NOTE: this leads to ${names} alone, so each change bumps everything below.`);
  }
  return bumpText(lookUpsOf(route), route.ids);
}

function lookUpsOf({ hops }: Route): TableLookup[] {
  return hops.map(({ relation: { visible, schema, name }, on }) => ({
    ...{ schema: visible ? null : schema, table: name, on },
  }));
}

function bumpText(hops: readonly TableLookup[], ids: readonly IdColumn[], when?: string): string {
  const named = ids.map(({ namespace, column, of, hop, expression: isExpression }) => {
    let value = text(column);
    if (isExpression) value = `expression(${value})`;
    else if (hops.length > 0 && of === 'changed') value = `changed(${value})`;
    else if (hop !== undefined) value = `lookedUp(${text(hops[hop - 1]!.table)}, ${value})`;
    return `${key(namespace)}: ${value}`;
  });
  const condition = when === undefined ? '' : `, { when: ${text(when)} }`;
  const steps = hops.map(({ schema, table, on }, i) => {
    const pairs = object(on.map(({ column, changed }) => `${key(column)}: ${text(changed)}`));
    const options = schema === null ? '' : `, { schema: ${text(schema)} }`;
    return `.${i === 0 ? 'lookUp' : 'thenLookUp'}(${text(table)}, ${pairs}${options})`;
  });
  return [...steps, `.bump(${object(named)}${condition})`].join('\n');
}

/** The migration with all sentences. */
export function migrationOf(cache: string, proposals: readonly Proposal[], relations: readonly ReadRelation[]): string {
  if (proposals.length === 0) return '';
  const body = proposals.map(({ sentence }) => indented(sentence)).join('\n\n');
  const removed = proposals.flatMap(({ replaces }, i) => {
    const { schema, name, visible, shown } = relations[i]!;
    const options = `cache: ${text(cache)}${visible ? '' : `, schema: ${text(schema)}`}`;
    return replaces
      ? [`  // ${shown} had triggers before: install their earlier sentence again.`]
      : [`  await removeTriggers(db, ${text(name)}, { ${options} });`];
  });
  const imports = [
    ...['changed', 'expression', 'lookedUp'].filter((name) => body.includes(`: ${name}(`)),
    'onChangeOf',
    ...(removed.some((line) => line.includes('await')) ? ['removeTriggers'] : []),
  ];
  return (
    `import type { Knex } from 'knex';\nimport { ${imports.join(', ')} } from 'gencache/knex';\n\n` +
    `export async function up(db: Knex): Promise<void> {\n${body}\n}\n\n` +
    `export async function down(db: Knex): Promise<void> {\n${removed.join('\n')}\n}\n`
  );
}

export function indented(lines: string, by = '  '): string {
  return lines.replaceAll(/^(?=.)/gm, by);
}

/** On one line where that is short. */
function optionsText(options: readonly string[]): string {
  const line = `{ ${options.join(', ')} }`;
  return line.length <= 80 ? line : `{\n${options.map((option) => `  ${option},`).join('\n')}\n}`;
}

function object(fields: readonly string[]): string {
  return fields.length === 0 ? '{}' : `{ ${fields.join(', ')} }`;
}

/** A text in TypeScript. */
function text(value: string): string {
  return `'${value.replaceAll(/['\\]/g, String.raw`\$&`).replaceAll('\n', String.raw`\n`)}'`;
}

function key(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? name : text(name);
}
