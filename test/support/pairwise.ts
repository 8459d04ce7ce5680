import type { Random } from "./random.js";

/** The values of each option that are crossed. */
export type Axes = Readonly<Record<string, readonly (string | number | boolean)[]>>;

/** One value for each option. */
export type Row<A extends Axes> = { readonly [K in keyof A]: A[K][number] };

const CANDIDATES = 60;

/**
 * Rows in which every two values of different options meet at least once, wherever some row that `isValid` lets pass has both. Each
 * row is the best of some random ones, so the number of rows is small, not the smallest.
 */
export function pairwiseRows<A extends Axes>(axes: A, isValid: (row: Row<A>) => boolean, random: Random): Row<A>[] {
  const names = Object.keys(axes);
  const missing = new Set<string>();
  for (let i = 0; i < 4000; i++) {
    const row = randomRow(axes, random);
    if (isValid(row)) for (const pair of pairsOf(row, names)) missing.add(pair);
  }
  const rows: Row<A>[] = [];
  while (missing.size > 0) {
    let best: { row: Row<A>; covered: number } | undefined;
    for (let tried = 0; tried < CANDIDATES || best === undefined; ) {
      const row = randomRow(axes, random);
      if (!isValid(row)) continue;
      tried += 1;
      const covered = pairsOf(row, names).filter((pair) => missing.has(pair)).length;
      if (covered > (best?.covered ?? 0)) best = { row, covered };
    }
    for (const pair of pairsOf(best.row, names)) missing.delete(pair);
    rows.push(best.row);
  }
  return rows;
}

function randomRow<A extends Axes>(axes: A, random: Random): Row<A> {
  return Object.fromEntries(Object.entries(axes).map(([name, values]) => [name, random.pick(values)])) as Row<A>;
}

function pairsOf(row: Readonly<Record<string, unknown>>, names: readonly string[]): string[] {
  return names.flatMap((a, index) =>
    names.slice(index + 1).map((b) => `${a}=${String(row[a])} ${b}=${String(row[b])}`),
  );
}
