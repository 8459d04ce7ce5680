import { expect, it } from "vitest";
import { fuzzClient, fuzzServer } from "../../../support/nbd-fuzz.js";

const MESSAGES = 100_000;

it("an NBD server takes 100,000 spoilt messages without harm", async () => {
  expect(await fuzzServer(MESSAGES, Date.now() % 65_536)).toMatchObject({ internalErrors: 0 });
});

it("an NBD client takes 100,000 spoilt replies without harm", async () => {
  expect(await fuzzClient(MESSAGES, Date.now() % 65_536)).toMatchObject({ internalErrors: 0 });
});
