import { describe, expect, it } from "vitest";
import { fuzzClient, fuzzNegotiation, fuzzServer } from "../../../support/nbd-fuzz.js";

const MESSAGES = 100_000;
const MIB = 1024 * 1024;
/** Other messages on every run; the name of the suite has the seed of one that failed. */
const SEED = Date.now() % 65_536;

describe(`100,000 spoilt messages of NBD (seed ${SEED})`, () => {
  it.each([
    ["options and requests", "a server", fuzzServer],
    ["replies to requests", "a client", fuzzClient],
    ["greetings and replies to options", "a client", fuzzNegotiation],
  ])("%s do %s no harm", async (_what, _whom, fuzz) => {
    const { messages, internalErrors, growth } = await fuzz(MESSAGES, SEED);
    expect(messages).toBeGreaterThanOrEqual(MESSAGES);
    expect(internalErrors).toBe(0);
    expect(growth).toBeLessThan(256 * MIB);
  });
});
