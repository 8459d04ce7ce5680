import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { BusyPoll } from "../../../src/servers/busy-poll.js";

const immediates = (): number => process.getActiveResourcesInfo().filter((kind) => kind === "Immediate").length;

it("keeps the event loop awake for a moment after a request, and no longer", async () => {
  const before = immediates();
  const poll = new BusyPoll(2);
  poll.noteRequest();
  expect(immediates()).toBe(before + 1);
  // However many come: one poll serves all.
  poll.noteRequest();
  expect(immediates()).toBe(before + 1);
  await sleep(20);
  expect(immediates()).toBe(before);
});

it("gives the habit up where nothing ever follows, and tries again much later", async () => {
  const before = immediates();
  const poll = new BusyPoll(2);
  const isPolling = async (): Promise<boolean> => {
    poll.noteRequest();
    const polls = immediates() > before;
    await sleep(2);
    return polls;
  };
  const answers: boolean[] = [];
  while (answers.length < 16 + 256 + 1) answers.push(await isPolling());
  expect(answers).toEqual([...answers.slice(0, 16).fill(true), ...answers.slice(16, -1).fill(false), true]);
});

it("does nothing on a single processor, which the client needs", () => {
  const before = immediates();
  new BusyPoll(1).noteRequest();
  expect(immediates()).toBe(before);
});
