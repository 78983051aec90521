import { Presets, SingleBar } from 'cli-progress';

/** Shows a bar while `work` runs, if `shown`. `work` reports the share that is done, 0 to 1. */
export async function withProgress<T>(
  label: string,
  work: (progress: (done: number) => void) => Promise<T>,
  shown: boolean,
): Promise<T> {
  if (!shown) return work(() => {});
  const format = `  ${label.padEnd(24)} {bar} {percentage} %`;
  const bar = new SingleBar({ format, clearOnComplete: true, hideCursor: true, stream: process.stderr }, Presets.rect);
  bar.start(1, 0);
  try {
    return await work((done) => bar.update(done));
  } finally {
    bar.stop();
  }
}
