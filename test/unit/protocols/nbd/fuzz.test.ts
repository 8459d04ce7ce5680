import { expect, it } from "vitest";
import { fuzzClient, fuzzNegotiation, fuzzServer } from "../../../support/nbd-fuzz.js";

it("an NBD server takes spoilt messages without harm", async () => {
  const outcome = await fuzzServer(3000, 1);
  expect(outcome.internalErrors).toBe(0);
  expect(outcome.ended).toBeGreaterThan(10);
});

it("an NBD client takes spoilt replies without harm", async () => {
  const outcome = await fuzzClient(2000, 2);
  expect(outcome.internalErrors).toBe(0);
  expect(outcome.ended).toBeGreaterThan(10);
});

it("an NBD client takes spoilt handshakes without harm", async () => {
  const outcome = await fuzzNegotiation(3000, 3);
  expect(outcome.internalErrors).toBe(0);
  expect(outcome.ended).toBeGreaterThan(10);
});
