import { type Random, seeded, weighted } from './random.js';
import { environmentsOf, type Size } from './world.js';

/** An event in an environment that these detectors, all of that environment, have seen. */
export interface DetectorEvent {
  readonly detectors: readonly number[];
  readonly environment: number;
}

/** Detector n sees n^-1.1 times the events of detector 1. */
const ZIPF = 1.1;
/** The share of a detector's events in its first environment, such as production. */
const IN_FIRST_ENVIRONMENT = 0.9;
/** One to three detectors, with equal probability, see an event. Groups of three watch the same thing. */
const TOGETHER = 3;

/** The share of all events that a detector sees, up to a factor. */
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

/** The detectors that watch the same thing as a detector in an environment: its neighbours by popularity. */
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

/** The items, two at most, in random order. */
function shuffled<T>(items: readonly T[], random: Random): readonly T[] {
  return random() < 0.5 ? items : items.toReversed();
}
