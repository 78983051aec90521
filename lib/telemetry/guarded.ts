/**
 * Returns a listener whose errors reach no caller: `process.emitWarning` reports one that throws or rejects. `what` names the
 * listener: `listener of "read"`.
 */
export function guarded<Event>(what: string, listener: (event: Event) => void): (event: Event) => void {
  const warn = (error: unknown): void =>
    process.emitWarning(`A gencache ${what} threw: ${String(error)}`, 'GencacheListenerWarning');
  return (event) => {
    try {
      const result: unknown = listener(event);
      if (result instanceof Promise) result.catch(warn);
    } catch (error) {
      warn(error);
    }
  };
}
