import { describe, expect, it } from "vitest";
import { ReplyBlocks } from "../../../../src/protocols/nbd/reply-blocks.js";
import type { Transport } from "../../../../src/protocols/nvme/transport.js";

const LARGE = 256 * 1024;
const REPLY = 64 * 1024;

function blocksWith() {
  const released: Uint8Array[] = [];
  const transport: Pick<Transport, "send" | "release"> = {
    send: () => undefined,
    release: (block) => released.push(block),
  };
  const blocks = new ReplyBlocks(transport as Transport, (bytes) => new Uint8Array(bytes));
  // Until blocks have their full size.
  while (blocks.block.length < LARGE) blocks.claim(4096);
  return { blocks, released };
}

function fillBlock(blocks: ReplyBlocks): void {
  const { block } = blocks;
  while (blocks.block === block) blocks.claim(REPLY);
}

describe("ReplyBlocks", () => {
  it("give the memory of a block back when it is full", () => {
    const { blocks, released } = blocksWith();
    const { block } = blocks;
    fillBlock(blocks);
    expect(released.length).toBe(1);
    expect(released[0]).toBe(block);
  });

  it("keep the memory of a full block while a reply in it waits for the disk, and give it back once", () => {
    const { blocks, released } = blocksWith();
    const { block } = blocks;
    const rooms = [1, 2].map(() => blocks.setAside(blocks.claim(4096)));
    fillBlock(blocks);
    expect(released.length).toBe(0);
    for (const room of rooms) {
      expect(released.length).toBe(0);
      blocks.send(room);
    }
    expect(released.length).toBe(1);
    expect(released[0]).toBe(block);
  });

  it("keep a block whose late replies left before it was full", () => {
    const { blocks, released } = blocksWith();
    const { block } = blocks;
    blocks.send(blocks.setAside(blocks.claim(4096)));
    expect(released.length).toBe(0);
    fillBlock(blocks);
    expect(released.length).toBe(1);
    expect(released[0]).toBe(block);
  });
});
