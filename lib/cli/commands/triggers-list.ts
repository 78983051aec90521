import { requireInstalledOutbox } from '../../knex/outbox/installed-outbox.js';
import { displayName } from '../../knex/postgres/identifiers.js';
import { hopsOf, positionOf, type TriggerBump } from '../../knex/triggers/trigger-definition.js';
import { type InstalledDefinition, installedDefinitions } from '../../knex/triggers/trigger-registry.js';
import { columns } from '../columns.js';
import { type Command, OK } from '../command.js';
import { withDatabase } from '../database.js';
import { CACHE_FILTER, DATABASE_OPTIONS, JSON_OPTION } from '../option.js';

export const triggersListCommand: Command = {
  words: ['triggers', 'list'],
  summary: 'Lists the tables that triggers watch, and what their changes bump',
  options: { cache: CACHE_FILTER, json: JSON_OPTION, ...DATABASE_OPTIONS },
  example: 'gencache triggers list --cache shop',
  run: (args, terminal) =>
    withDatabase(args, terminal, async ({ db, outbox }) => {
      const cache = args.cacheFilter();
      const installed = await requireInstalledOutbox(db, outbox);
      const definitions = await installedDefinitions(db, installed, cache === undefined ? {} : { cache });
      if (args.flag('json')) terminal.out(JSON.stringify(definitions));
      else if (definitions.length === 0) terminal.out('No triggers are installed.');
      else terminal.out(columns([HEAD, ...definitions.map(toRow)]));
      return OK;
    }),
};

const HEAD = ['cache', 'table', 'name', 'operations', 'columns', 'bumps'];

function toRow({ cache, schema, table, name, operations, columns: watched, bumps }: InstalledDefinition): string[] {
  return [
    ...[cache, displayName(schema, table), name, [...operations, 'truncate'].join(' ')],
    ...[watched?.join(' ') ?? 'any', bumps.map(toBump).join('; ')],
  ];
}

/** `detector=detector_workflow.detector_id/environment=environment_id by detector_workflow(workflow_id = id)` */
function toBump(bump: TriggerBump): string {
  const hops = hopsOf(bump);
  const path = bump.ids.map((id) => {
    const table = hops[positionOf(bump, id) - 1]?.table;
    const from = table === undefined ? '' : `${displayName(null, table)}.`;
    return `${id.namespace}=${from}${id.expression ? `(${id.column})` : displayName(null, id.column)}`;
  });
  const by = hops.map(({ table, on }) => {
    const pairs = on.map(({ column, changed }) => `${displayName(null, column)} = ${displayName(null, changed)}`);
    return ` by ${displayName(null, table)}(${pairs.join(', ')})`;
  });
  return `${path.join('/') || 'global'}${by.join('')}${bump.when === undefined ? '' : ` when ${bump.when}`}`;
}
