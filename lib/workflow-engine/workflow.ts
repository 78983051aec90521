import type { Knex } from 'knex';
import { query } from '../knex/postgres/query.js';
import { integer } from '../model/id-kind.js';

/** A workflow, with the columns that an event processor needs. */
export interface Workflow {
  /** A number, or text beyond 2^53. */
  readonly id: number | string;
  readonly name: string;
  /** Null: the workflow runs in every environment. */
  readonly environmentId: number | string | null;
  readonly config: unknown;
  readonly updatedAt: Date;
}

/** A workflow, and the detector and environment of the lookup that found it. */
export interface WorkflowRow {
  readonly detector_id: string;
  readonly environment_id: string | null;
  readonly id: string;
  readonly name: string;
  readonly config: unknown;
  /** In ms since 1970, as text. */
  readonly updated_at_ms: string;
}

/** Ids of a `{ detector, environment }` scope, as loaders get them. */
export interface WorkflowIds {
  readonly detector: number | string;
  readonly environment: number | string | null;
}

/**
 * The enabled workflows linked to enabled detectors and bound to exactly that environment, or to no environment where it
 * is null: `ids: [n] -> rows`, by workflow id within each. One query, by index alone: for each pair the links of its
 * detector (primary key), then their workflows (primary key). Reads one snapshot; takes no locks.
 */
export async function workflowRows(db: Knex, ids: readonly WorkflowIds[]): Promise<WorkflowRow[]> {
  return query(db, WORKFLOWS_SQL, [ids.map((id) => id.detector), ids.map((id) => id.environment)]);
}

/** `?`: detector ids, environment ids, of the same length. */
export const WORKFLOWS_SQL = `
  select pair.detector_id, pair.environment_id, workflow.id, workflow.name, workflow.config,
    round(extract(epoch from workflow.updated_at) * 1000) as updated_at_ms
  from unnest(?::bigint[], ?::bigint[]) as pair (detector_id, environment_id)
  join detector on detector.id = pair.detector_id and detector.enabled
  join detector_workflow as link on link.detector_id = pair.detector_id
  join workflow on workflow.id = link.workflow_id
    and workflow.enabled
    and workflow.environment_id is not distinct from pair.environment_id
  order by workflow.id`;

const ID = integer();

export function toWorkflow(row: WorkflowRow): Workflow {
  return {
    id: ID.value(row.id)!,
    name: row.name,
    environmentId: row.environment_id === null ? null : ID.value(row.environment_id)!,
    config: row.config,
    updatedAt: new Date(Number(row.updated_at_ms)),
  };
}

/** The distinct workflows of some detectors, in the order in which they first appear. */
export function unionOfWorkflows(lists: Iterable<readonly Workflow[]>): Workflow[] {
  const byId = new Map<Workflow['id'], Workflow>();
  for (const list of lists) for (const workflow of list) if (!byId.has(workflow.id)) byId.set(workflow.id, workflow);
  return [...byId.values()];
}
