import { type Random, seeded, weighted } from './random.js';
import { environmentsOf, type Size } from './world.js';

/** Something happened in an environment, and these detectors, all of that environment, have seen it. */
export interface DetectorEvent {
  readonly detectors: readonly number[];
  readonly environment: number;
}

/** Detector 1 sees the most: detector n sees n^-1.1 as much as it does. */
const ZIPF = 1.1;
/** Most happens in production: the share of a detector's events that come from its first environment. */
const IN_FIRST_ENVIRONMENT = 0.9;
/** An event is seen by one to three detectors, as often each. In an environment, three watch the same thing. */
const TOGETHER = 3;

/** How much of everything that happens a detector sees, in proportion. */
export function popularity(detector: number): number {
  return detector ** -ZIPF;
}

/** An endless stream of events, the same for the same seed. */
export function* eventStream(size: Size, seed: number): Generator<DetectorEvent, never> {
  const random = seeded(seed);
  const detectors = Array.from({ length: size.detectors }, (_, i) => i + 1);
  const companions = companionsOf(detectors, size);
  const draw = weighted(detectors, popularity, random);
  for (;;) {
    const detector = draw();
    const environment = environmentsOf(detector, size)[random() < IN_FIRST_ENVIRONMENT ? 0 : 1];
    const others = shuffled(companions(detector, environment), random);
    yield { detectors: [detector, ...others.slice(0, Math.floor(random() * TOGETHER))], environment };
  }
}

/** The same stream without its first `events`. */
export function streamFrom(events: number, size: Size, seed: number): Generator<DetectorEvent, never> {
  const stream = eventStream(size, seed);
  for (let i = 0; i < events; i++) stream.next();
  return stream;
}

/** Who watches the same as a detector in an environment: its neighbours there by popularity. */
function companionsOf(
  detectors: readonly number[],
  size: Size,
): (detector: number, environment: number) => readonly number[] {
  const members = new Map<number, number[]>();
  for (const detector of detectors) {
    for (const environment of environmentsOf(detector, size)) {
      const others = members.get(environment);
      if (others) others.push(detector);
      else members.set(environment, [detector]);
    }
  }
  const known = new Map<string, readonly number[]>();
  for (const [environment, all] of members) {
    all.forEach((detector, i) => {
      const start = i - (i % TOGETHER);
      const group = all.slice(start, start + TOGETHER);
      known.set(
        `${detector}/${environment}`,
        group.filter((other) => other !== detector),
      );
    });
  }
  return (detector, environment) => known.get(`${detector}/${environment}`)!;
}

/** Of two, that is. */
function shuffled<T>(items: readonly T[], random: Random): readonly T[] {
  return random() < 0.5 ? items : items.toReversed();
}
