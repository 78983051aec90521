import type { Knex } from 'knex';
import type { GenerationalCache } from '../cache.js';
import type { ReadOptions } from '../entry.js';
import { integer } from '../model/id-kind.js';
import type { KnexContext } from '../knex/knex-source.js';
import { query } from '../knex/postgres/query.js';
import type { BumpOptions } from '../namespace.js';
import type { Id, WorkflowCacheOptions } from './workflow-cache.js';

/** One condition of a group. */
export interface Condition {
  /** A number, or text beyond 2^53. */
  readonly id: number | string;
  readonly type: string;
  readonly comparison: unknown;
  readonly result: unknown;
}

/** A group of conditions that is linked to a workflow, and decides whether its actions run. */
export interface ActionFilter {
  /** A number, or text beyond 2^53. */
  readonly id: number | string;
  /** How the conditions are combined: `any`, `all`, `none`. */
  readonly logic: string;
  /** By id. */
  readonly conditions: readonly Condition[];
}

/** The action filters of a workflow, with their conditions. One entry for each `{ workflow }`. */
export class ActionFilterCache {
  readonly #workflows;
  readonly #filters;

  /** Declares `workflow` and `action_filters` on the cache. Throws ConfigurationError. */
  constructor(cache: GenerationalCache<KnexContext, Knex.Transaction>, options: WorkflowCacheOptions = {}) {
    this.#workflows = cache.namespace('workflow', integer());
    this.#filters = this.#workflows.list('action_filters', {
      ...options,
      load: (ids, { db }) => query<ActionFilterRow>(db, ACTION_FILTERS_SQL, [ids.map((id) => id.workflow)]),
      by: (row) => ({ workflow: row.workflow_id }),
      value: toActionFilter,
    });
  }

  /**
   * For each workflow its action filters, by id; none for an unknown workflow. `workflowIds: [n] -> [n]`, same order.
   *
   * Warm, one command for all workflows; misses cost one query and a second command.
   */
  getActionFiltersByWorkflows(
    workflowIds: readonly Id[],
    options?: ReadOptions & { readonly trx?: Knex.Transaction },
  ): Promise<ActionFilter[][]> {
    return this.#filters.fetchMany(
      workflowIds.map((workflow) => ({ workflow })),
      options,
    );
  }

  /** Bumps these workflows, after a change of their groups, links or conditions. One command for each 1,000. */
  async bumpWorkflows(workflowIds: readonly Id[], options?: BumpOptions): Promise<void> {
    await this.#workflows.bumpMany(
      workflowIds.map((workflow) => ({ workflow })),
      options,
    );
  }
}

interface ActionFilterRow {
  readonly workflow_id: string;
  readonly id: string;
  readonly logic: string;
  readonly conditions: readonly (Condition & { readonly id: string })[];
}

/** `?`: workflow ids. By index alone. Ids within JSON are text, which keeps all 64 bits. Reads one snapshot; takes no locks. */
export const ACTION_FILTERS_SQL = `
  select wanted.workflow_id, condition_group.id, condition_group.logic,
    (select coalesce(jsonb_agg(
        jsonb_build_object('id', condition.id::text, 'type', condition.type,
          'comparison', condition.comparison, 'result', condition.result)
        order by condition.id), '[]')
      from condition where condition.condition_group_id = link.condition_group_id) as conditions
  from unnest(?::bigint[]) as wanted (workflow_id)
  join workflow_condition_group as link on link.workflow_id = wanted.workflow_id
  join condition_group on condition_group.id = link.condition_group_id
  order by condition_group.id`;

const ID = integer();

function toActionFilter({ id, logic, conditions }: ActionFilterRow): ActionFilter {
  return {
    id: ID.value(id)!,
    logic,
    conditions: conditions.map((condition) => ({ ...condition, id: ID.value(condition.id)! })),
  };
}
