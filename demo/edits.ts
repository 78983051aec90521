import type { Knex } from 'knex';
import { pick, type Random, seeded, weighted } from './random.js';
import { popularity } from './stream.js';
import type { Tables } from './tables.js';
import { environmentsOf, type Size } from './world.js';

/** The effect of a transaction, for the oracle. The scopes to bump for it are the triggers' business. */
export interface EditEffect {
  /** The detectors whose workflows may differ now. */
  readonly detectors: readonly number[];
  apply(tables: Tables): void;
}

/** The statements of one edit, in its transaction. */
export type Edit = (trx: Knex.Transaction) => Promise<EditEffect>;

/**
 * Generates edits of the four tables, one table after another, the same for the same seed: by Knex's builder and in raw
 * SQL, as an application without a cache would write them. Half of the edits hit popular rows. Later edits remove the rows
 * that earlier ones added, so that the tables keep their size.
 */
export class Edits {
  readonly #tables: Tables;
  readonly #size: Size;
  readonly #random: Random;
  readonly #popular: () => number;
  #made = 0;
  /** Edits that a later edit undoes. */
  #disabledDetector: number | undefined;
  #disabledWorkflow: number | undefined;
  #unlinked: { readonly detector: number; readonly workflow: number } | undefined;
  #temporary: { readonly environment: number; readonly workflow: number; bound: boolean } | undefined;

  constructor(tables: Tables, size: Size, seed: number) {
    this.#tables = tables;
    this.#size = size;
    this.#random = seeded(seed);
    const detectors = Array.from({ length: size.detectors }, (_, i) => i + 1);
    this.#popular = weighted(detectors, popularity, this.#random);
  }

  next(): Edit {
    const kinds = [this.#detector, this.#workflow, this.#link, this.#environment];
    return kinds[this.#made++ % kinds.length]!.call(this);
  }

  #detector(): Edit {
    const disabled = this.#disabledDetector;
    if (disabled !== undefined) {
      this.#disabledDetector = undefined;
      return this.#updateDetector(disabled, { enabled: true });
    }
    const detector = this.#anyDetector();
    if (this.#random() < 0.5) return this.#updateDetector(detector, { name: `detector ${detector} v${this.#made}` });
    this.#disabledDetector = detector;
    return this.#updateDetector(detector, { enabled: false });
  }

  #updateDetector(id: number, set: { name: string } | { enabled: boolean }): Edit {
    return async (trx) => {
      if ('name' in set) await trx.raw('update detector set name = ? where id = ?', [set.name, id]);
      else await trx('detector').where({ id }).update(set);
      return {
        detectors: [id],
        apply: ({ detectors }) => detectors.set(id, { ...detectors.get(id)!, ...set }),
      };
    };
  }

  #workflow(): Edit {
    const disabled = this.#disabledWorkflow;
    if (disabled !== undefined) {
      this.#disabledWorkflow = undefined;
      return this.#updateWorkflow(disabled, { enabled: true });
    }
    const id = this.#anyWorkflow();
    const choice = this.#random();
    if (choice < 0.4) return this.#updateWorkflow(id, { name: `workflow ${id} v${this.#made}` });
    if (choice < 0.7) return this.#moveWorkflow(id);
    this.#disabledWorkflow = id;
    return this.#updateWorkflow(id, { enabled: false });
  }

  /** Binds a workflow to another environment of one of its detectors, or to none. */
  #moveWorkflow(id: number): Edit {
    const { environmentId } = this.#tables.workflows.get(id)!;
    const places = this.#tables.detectorsOf(id).flatMap((detector) => environmentsOf(detector, this.#size));
    const others = [null, ...places].filter((place) => place !== environmentId);
    return this.#updateWorkflow(id, { environmentId: pick(others, this.#random) });
  }

  #updateWorkflow(id: number, set: { name?: string; enabled?: boolean; environmentId?: number | null }): Edit {
    return async (trx) => {
      const updatedAt = new Date();
      const { environmentId, ...columns } = set;
      const moved = environmentId === undefined ? {} : { environment_id: environmentId };
      await trx('workflow')
        .where({ id })
        .update({ ...columns, ...moved, updated_at: updatedAt });
      const before = this.#tables.workflows.get(id)!;
      const after = { ...before, ...set, updatedAt };
      return {
        detectors: this.#tables.detectorsOf(id),
        apply: ({ workflows }) => workflows.set(id, after),
      };
    };
  }

  #link(): Edit {
    const unlinked = this.#unlinked;
    if (unlinked !== undefined && this.#tables.workflows.has(unlinked.workflow)) {
      this.#unlinked = undefined;
      const { detector, workflow } = unlinked;
      return async (trx) => {
        await trx.raw('insert into detector_workflow (detector_id, workflow_id) values (?, ?) on conflict do nothing', [
          detector,
          workflow,
        ]);
        return {
          detectors: [detector],
          apply: (tables) => tables.link(unlinked),
        };
      };
    }
    const detector = this.#anyDetector();
    const workflow = pick(this.#tables.workflowsOf(detector), this.#random);
    const link = { detector, workflow };
    this.#unlinked = link;
    return async (trx) => {
      await trx('detector_workflow').where({ detector_id: detector, workflow_id: workflow }).delete();
      return {
        detectors: [detector],
        apply: (tables) => tables.unlink(link),
      };
    };
  }

  /** Three edits in turn: an environment comes, with an unbound workflow; the workflow is bound to it; both go. */
  #environment(): Edit {
    const temporary = this.#temporary;
    if (temporary === undefined) return this.#createEnvironment();
    if (!temporary.bound) {
      temporary.bound = true;
      return this.#updateWorkflow(temporary.workflow, { environmentId: temporary.environment });
    }
    this.#temporary = undefined;
    return this.#deleteEnvironment(temporary.environment);
  }

  #createEnvironment(): Edit {
    const name = `temporary ${this.#made}`;
    const linked = [...new Set([this.#popular(), this.#anyDetector()])];
    return async (trx) => {
      const environment = await inserted(trx('environment').insert({ name }).returning('id'));
      const row = { name, enabled: true, config: { notify: ['chat'], throttleMinutes: 5 } };
      const updatedAt = new Date();
      const workflow = await inserted(
        trx('workflow')
          .insert({ ...row, updated_at: updatedAt })
          .returning('id'),
      );
      await trx('detector_workflow').insert(
        linked.map((detector) => ({ detector_id: detector, workflow_id: workflow })),
      );
      this.#temporary = { environment, workflow, bound: false };
      return {
        detectors: linked,
        apply(tables) {
          tables.environments.set(environment, { id: environment, name });
          tables.workflows.set(workflow, { id: workflow, environmentId: null, updatedAt, ...row });
          for (const detector of linked) tables.link({ detector, workflow });
        },
      };
    };
  }

  #deleteEnvironment(id: number): Edit {
    return async (trx) => {
      const gone = [...this.#tables.workflows.values()].filter((workflow) => workflow.environmentId === id);
      await trx.raw('delete from environment where id = ?', [id]);
      return {
        detectors: [...new Set(gone.flatMap((workflow) => this.#tables.detectorsOf(workflow.id)))],
        apply: (tables) => tables.deleteEnvironment(id),
      };
    };
  }

  /** A detector with a link, so that the edit has an effect. */
  #anyDetector(): number {
    for (;;) {
      const detector = this.#random() < 0.5 ? this.#popular() : 1 + Math.floor(this.#random() * this.#size.detectors);
      if (this.#tables.workflowsOf(detector).length > 0) return detector;
    }
  }

  /** Any workflow but the temporary one. */
  #anyWorkflow(): number {
    for (;;) {
      const workflow = pick(this.#tables.workflowsOf(this.#anyDetector()), this.#random);
      if (workflow !== this.#temporary?.workflow) return workflow;
    }
  }
}

async function inserted(rows: PromiseLike<{ id: string }[]>): Promise<number> {
  return Number((await rows)[0]!.id);
}
