import { hopsOf, type IdColumn, type TableLookup } from '../triggers/trigger-definition.js';
import type { ChosenRoute, PlannedWatch } from './planned-watches.js';
import type { ReadRelation } from './relations.js';
import type { Proposal } from './report.js';

/** The sentence to paste for a table. `isVisible`: whether the search path finds a table, so that its name needs no schema. */
export function propose(
  { definition, relation, installed, choices, forOthers }: PlannedWatch,
  isVisible: (table: { readonly schema: string | null; readonly table: string }) => boolean,
): Proposal {
  const { cache, schema, table, name, truncate, limit, subscriber, columns } = definition;
  const open = choices.flatMap((choice) => openIn(choice, relation));
  const notes = choices.flatMap((choice) => notesOn(choice));
  if (forOthers) {
    notes.push(
      `NOTE: lookups of ${relation.shown} by other triggers miss no change only if each change bumps everything.`,
    );
  }
  const options = [`cache: ${text(cache)}`];
  if (!relation.visible) options.push(`schema: ${text(schema)}`);
  if (name !== 'default') options.push(`name: ${text(name)}`);
  if (truncate !== '') options.push(`truncate: ${text(truncate)}`);
  if (limit !== 1_000) options.push(`limit: ${limit}`);
  if (subscriber) options.push('subscriber: true');
  if (columns !== null) options.push(`columns: [${columns.map(text).join(', ')}]`);
  const bumps = definition.bumps.map((bump) => {
    const hops = hopsOf(bump).map((hop) => (isVisible(hop) ? { ...hop, schema: null } : hop));
    return bumpText(hops, bump.ids, bump.when);
  });
  const sentence = [
    ...new Set([...open, ...notes].map((line) => `// ${line}`)),
    `await onChangeOf(db, ${text(table)}, ${optionsText(options)})`,
    ...bumps.map((bump) => indented(bump)),
    '  .install();',
  ];
  return { table: relation.shown, sentence: sentence.join('\n'), open, replaces: installed !== undefined };
}

/** What the owner must fill in, or check. */
function openIn({ occurrence, routes, route }: ChosenRoute, relation: ReadRelation): string[] {
  if (route === undefined) return [`FILL IN: ${routes.missing(occurrence)} Until then each change bumps everything.`];
  if (!route.byForeignKey) return [];
  const [hop] = route.hops;
  const to = hop === undefined ? '' : ` to or beside ${hop.relation.shown}`;
  return [`CHECK: no statement joins ${relation.shown}; its foreign key${to} stands in for that.`];
}

function notesOn({ route }: ChosenRoute): string[] {
  if (route === undefined || route.complete) return [];
  const names = route.ids.map(({ namespace }) => namespace).join(', ');
  return [`NOTE: this leads to ${names} alone, so each change bumps everything below.`];
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
