import { describe, expect, it } from "vitest";
import { crc32c } from "../../../../src/codec/crc32c.js";
import { Command, type CommandQueue } from "../../../../src/protocols/nvme/command.js";
import { Outbox } from "../../../../src/protocols/nvme/pdu/outbox.js";
import type { Transport } from "../../../../src/protocols/nvme/transport.js";

const KIB = 1024;

class Peer implements Pick<Transport, "send" | "release"> {
  readonly sent: Uint8Array[] = [];
  readonly released: Uint8Array[] = [];

  send(bytes: Uint8Array): void {
    this.sent.push(bytes);
  }

  release(block: Uint8Array): void {
    this.released.push(block);
  }
}

function outboxWithPeer(): { outbox: Outbox; peer: Peer; taken: Uint8Array[] } {
  const peer = new Peer();
  const taken: Uint8Array[] = [];
  const allocate = (bytes: number): Uint8Array => {
    const block = new Uint8Array(bytes);
    taken.push(block);
    return block;
  };
  return { outbox: new Outbox({ transport: peer as unknown as Transport, crc: crc32c, allocate }), peer, taken };
}

function answer(outbox: Outbox, length: number): void {
  outbox.finish(new Command({} as CommandQueue), outbox.reserve(length));
}

function fillUntilFullSize(outbox: Outbox, taken: readonly Uint8Array[]): void {
  while (taken.at(-1)?.length !== 256 * KIB) answer(outbox, 4 * KIB);
}

describe("the memory of replies", () => {
  it("goes back when a block of the full size is used up", () => {
    const { outbox, peer, taken } = outboxWithPeer();
    for (let round = 0; round < 300; round++) answer(outbox, 4 * KIB);
    const full = taken.filter((block) => block.length === 256 * KIB);
    expect(full.length).toBeGreaterThan(3);
    expect(peer.released.map((block) => full.indexOf(block))).toEqual([...full.slice(0, -1).keys()]);
  });

  it("does not go back before everything in it was given to the transport", () => {
    const { outbox, peer } = outboxWithPeer();
    for (let round = 0; peer.released.length === 0; round++) answer(outbox, 4 * KIB);
    const [block] = peer.released;
    const ofBlock = peer.sent.filter((bytes) => bytes.buffer === block?.buffer);
    const end = Math.max(...ofBlock.map((bytes) => bytes.byteOffset + bytes.length));
    expect(ofBlock.reduce((sum, bytes) => sum + bytes.length, 0)).toBe(end);
    expect(end).toBeGreaterThan(248 * KIB);
  });

  it("goes back with the last reply that has room in it, however late", () => {
    const { outbox, peer, taken } = outboxWithPeer();
    fillUntilFullSize(outbox, taken);
    const late = [outbox.reserve(4 * KIB), outbox.reserve(4 * KIB)] as const;
    for (const room of late) outbox.setAside(room);
    for (let round = 0; round < 200; round++) answer(outbox, 4 * KIB);
    expect(peer.released.length).toBeGreaterThan(0);
    expect(peer.released).not.toContain(late[0].block);
    const before = peer.sent.length;
    outbox.finish(new Command({} as CommandQueue), late[1]);
    expect(peer.released).not.toContain(late[0].block);
    outbox.finish(new Command({} as CommandQueue), late[0]);
    expect(peer.sent.slice(before).map((bytes) => bytes.byteOffset)).toEqual([late[1].start, late[0].start]);
    expect(peer.released.at(-1)).toBe(late[0].block);
  });

  it("never goes back when the device failed a reply in it", () => {
    const { outbox, peer, taken } = outboxWithPeer();
    fillUntilFullSize(outbox, taken);
    const failed = outbox.reserve(4 * KIB);
    outbox.setAside(failed);
    outbox.drop(failed);
    for (let round = 0; round < 200; round++) answer(outbox, 4 * KIB);
    expect(peer.released.length).toBeGreaterThan(0);
    expect(peer.released).not.toContain(failed.block);
  });
});
