/**
 * All interleavings of several clients' steps: each client's own steps stay in their order. For clients of a, b and c
 * steps those are (a+b+c)! / (a! b! c!) schedules, each a list of which client takes its next step.
 */
export function* interleavings<Client extends string>(
  steps: Readonly<Record<Client, number>>,
): Generator<readonly Client[]> {
  const clients = (Object.keys(steps) as Client[]).filter((client) => steps[client] > 0);
  if (clients.length === 0) {
    yield [];
    return;
  }
  for (const client of clients) {
    for (const rest of interleavings({ ...steps, [client]: steps[client] - 1 })) yield [client, ...rest] as Client[];
  }
}
