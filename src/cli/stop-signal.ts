/** Resolves to the first signal that asks to stop; `again` says what a second one does. */
export function stopSignal(): Promise<string> & { again(act: () => void): void } {
  let act: (() => void) | undefined;
  const first = new Promise<string>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.on(signal, () => {
        act?.();
        resolve(signal);
      });
    }
  });
  return Object.assign(first, {
    again: (then: () => void) => {
      act = then;
    },
  });
}
