import { expect, it } from "vitest";
import { BufferPool } from "../../../../src/jobs/convert/buffer-pool.js";

it("a pool tells everybody who waits when all buffers are back", async () => {
  const pool = new BufferPool(2, 16);
  const [a, b] = [await pool.take(), await pool.take()];
  const told: string[] = [];
  const waits = ["first", "second"].map((name) => pool.allBack().then(() => told.push(name)));
  pool.give(a);
  await Promise.resolve();
  expect(told).toEqual([]);
  pool.give(b);
  await Promise.all(waits);
  expect(told).toEqual(["first", "second"]);
  await pool.allBack();
});
