import type { Knex } from 'knex';
import type { GenerationalCache } from '../cache.js';
import type { ReadOptions } from '../entry.js';
import { integer, nullable } from '../model/id-kind.js';
import type { KnexContext } from '../knex/knex-source.js';
import type { BumpOptions } from '../namespace.js';
import { toWorkflow, type Workflow, workflowRows } from './workflow.js';

/** An id: a number, or a bigint as pg returns it. */
export type Id = number | bigint | string;

/** Options of each cache of the workflow engine. */
export interface WorkflowCacheOptions {
  /** TTL of the entry of one scope: the bound on staleness if every bump were lost, in ms. Default: the cache's. */
  readonly ttlMs?: number;
}

/**
 * The workflows that must run for an event of some detectors in an environment.
 *
 * The workflows bound to an environment and those bound to none are separate entries, `{ detector, environment: 7 }`
 * and `{ detector, environment: null }`, so that a change to one kind leaves the other warm.
 */
export class WorkflowCache {
  readonly #cache: GenerationalCache<KnexContext, Knex.Transaction>;
  readonly #detectors;
  readonly #environments;
  readonly #workflows;

  /** Declares `detector`, `environment` and `workflows` on the cache. Throws ConfigurationError. */
  constructor(cache: GenerationalCache<KnexContext, Knex.Transaction>, options: WorkflowCacheOptions = {}) {
    this.#cache = cache;
    this.#detectors = cache.namespace('detector', integer());
    this.#environments = this.#detectors.namespace('environment', nullable(integer()));
    this.#workflows = this.#environments.list('workflows', {
      ...options,
      load: (ids, { db }) => workflowRows(db, ids),
      by: (row) => ({ detector: row.detector_id, environment: row.environment_id }),
      value: toWorkflow,
    });
  }

  /**
   * For each detector its enabled workflows bound to that environment, then those bound to none; only the latter when
   * `environmentId` is null. `detectorIds: [n] -> [n]`, same order; a detector that is disabled, or does not exist, has none.
   *
   * Warm, one command for all detectors and both kinds; misses cost one query and a second command.
   */
  async getWorkflowsByDetectors(
    detectorIds: readonly Id[],
    environmentId: Id | null,
    options?: ReadOptions & { readonly trx?: Knex.Transaction },
  ): Promise<Workflow[][]> {
    const unbound = detectorIds.map((detector) => ({ detector, environment: null }));
    if (environmentId === null) return this.#workflows.fetchMany(unbound, options);
    const bound = detectorIds.map((detector) => ({ detector, environment: environmentId }));
    const lists = await this.#workflows.fetchMany([...bound, ...unbound], options);
    return detectorIds.map((_, i) => [...lists[i]!, ...lists[i + detectorIds.length]!]);
  }

  /** Bumps these detectors in all environments, after a change of them or their links. One command for each 1,000. */
  async bumpDetectors(detectorIds: readonly Id[], options?: BumpOptions): Promise<void> {
    await this.#detectors.bumpMany(
      detectorIds.map((detector) => ({ detector })),
      options,
    );
  }

  /** Bumps each pair, and no sibling of it. `environment: null` stands for the workflows bound to no environment. */
  async bumpEnvironments(
    scopes: readonly { readonly detector: Id; readonly environment: Id | null }[],
    options?: BumpOptions,
  ): Promise<void> {
    await this.#environments.bumpMany(scopes, options);
  }

  /** Bumps everything. One command. */
  async bumpEverything(options?: BumpOptions): Promise<void> {
    await this.#cache.bump(options);
  }
}
