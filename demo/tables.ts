import type { Workflow } from '../lib/workflow-engine/index.js';
import type { Detector, Environment, Link, WorkflowOf, World } from './world.js';

/** The four tables in memory: the rows that the database must hold, kept up to date by each edit. */
export class Tables {
  readonly environments = new Map<number, Environment>();
  readonly detectors = new Map<number, Detector>();
  readonly workflows = new Map<number, WorkflowOf>();
  /** The workflows of a detector. */
  readonly #links = new Map<number, Set<number>>();
  /** The detectors of a workflow. */
  readonly #linked = new Map<number, Set<number>>();

  constructor(world: World) {
    for (const row of world.environments) this.environments.set(row.id, row);
    for (const row of world.detectors) this.detectors.set(row.id, row);
    for (const row of world.workflows) this.workflows.set(row.id, row);
    for (const row of world.links) this.link(row);
  }

  workflowsOf(detector: number): readonly number[] {
    return [...(this.#links.get(detector) ?? [])];
  }

  detectorsOf(workflow: number): readonly number[] {
    return [...(this.#linked.get(workflow) ?? [])];
  }

  link({ detector, workflow }: Link): void {
    put(this.#links, detector, workflow);
    put(this.#linked, workflow, detector);
  }

  unlink({ detector, workflow }: Link): void {
    this.#links.get(detector)?.delete(workflow);
    this.#linked.get(workflow)?.delete(detector);
  }

  /** Deletes an environment with its workflows and their links, as the foreign keys do. */
  deleteEnvironment(environment: number): void {
    for (const { id, environmentId } of this.workflows.values()) {
      if (environmentId !== environment) continue;
      for (const detector of this.detectorsOf(id)) this.unlink({ detector, workflow: id });
      this.workflows.delete(id);
    }
    this.environments.delete(environment);
  }

  /** The workflows to run for a detector: the enabled ones by environment, ordered by id within each. */
  entriesOf(detector: number): Map<number | null, Workflow[]> {
    const entries = new Map<number | null, Workflow[]>();
    if (!this.detectors.get(detector)?.enabled) return entries;
    for (const id of this.workflowsOf(detector).toSorted((a, b) => a - b)) {
      const { name, environmentId, enabled, config, updatedAt } = this.workflows.get(id)!;
      if (!enabled) continue;
      const entry = entries.get(environmentId);
      const workflow = { id, name, environmentId, config, updatedAt };
      if (entry) entry.push(workflow);
      else entries.set(environmentId, [workflow]);
    }
    return entries;
  }
}

function put(sets: Map<number, Set<number>>, from: number, to: number): void {
  const set = sets.get(from);
  if (set) set.add(to);
  else sets.set(from, new Set([to]));
}
