import { pick, seeded } from './random.js';

/** The numbers of rows. Each detector has three links. */
export interface Size {
  readonly detectors: number;
  readonly workflows: number;
  readonly environments: number;
}

export const FULL_SIZE: Size = { detectors: 10_000, workflows: 2_000, environments: 20 };

export interface Environment {
  readonly id: number;
  readonly name: string;
}

export interface Detector {
  readonly id: number;
  readonly name: string;
  readonly type: string;
  readonly enabled: boolean;
}

export interface WorkflowOf {
  readonly id: number;
  readonly name: string;
  readonly environmentId: number | null;
  readonly enabled: boolean;
  /** The properties stand in the order of jsonb: by length. */
  readonly config: { readonly notify: readonly string[]; readonly throttleMinutes: number };
  readonly updatedAt: Date;
}

export interface Link {
  readonly detector: number;
  readonly workflow: number;
}

/** The first rows of the tables. Ids start at 1, as in the tables. */
export interface World {
  readonly environments: readonly Environment[];
  readonly detectors: readonly Detector[];
  readonly workflows: readonly WorkflowOf[];
  readonly links: readonly Link[];
}

const TYPES = ['error', 'metric', 'uptime', 'cron'];
const CHANNELS = ['on-call', 'email', 'chat', 'ticket'];
/** One workflow in five runs in every environment. */
const UNBOUND_EVERY = 5;

/** The two environments in which a detector sees events. */
export function environmentsOf(detector: number, { environments }: Size): readonly [number, number] {
  const first = detector % environments;
  const apart = 1 + (Math.floor(detector / environments) % (environments - 1));
  return [1 + first, 1 + ((first + apart) % environments)];
}

/** The same world for the same seed. A detector has links to a workflow of each of its environments, and to an unbound one. */
export function makeWorld(size: Size, seed: number): World {
  const random = seeded(seed);
  const environments = numbered(size.environments, (id) => ({ id, name: `environment ${id}` }));
  const detectors = numbered(size.detectors, (id) => ({
    id,
    name: `detector ${id}`,
    type: pick(TYPES, random),
    enabled: true,
  }));
  const workflows = numbered(size.workflows, (id) => ({
    id,
    name: `workflow ${id}`,
    environmentId: id % UNBOUND_EVERY === 0 ? null : 1 + ((id - Math.floor(id / UNBOUND_EVERY)) % size.environments),
    enabled: true,
    config: { notify: [pick(CHANNELS, random)], throttleMinutes: 5 * (1 + Math.floor(random() * 12)) },
    updatedAt: new Date(Date.UTC(2024, 0, 1) + id * 60_000),
  }));
  const byEnvironment = new Map<number | null, WorkflowOf[]>(
    [null, ...environments.map(({ id }) => id)].map((id) => [id, []]),
  );
  for (const workflow of workflows) byEnvironment.get(workflow.environmentId)!.push(workflow);
  const links = detectors.flatMap(({ id }) =>
    [...environmentsOf(id, size), null].map((environment) => ({
      detector: id,
      workflow: pick(byEnvironment.get(environment)!, random).id,
    })),
  );
  return { environments, detectors, workflows, links };
}

function numbered<T>(count: number, make: (id: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i + 1));
}
