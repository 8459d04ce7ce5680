import { describe, expect, it } from "vitest";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { goData, metaData, NBD_OPT, nbdBench, optionBytes, sizedText } from "../../../support/nbd-pipe.js";

const ERR = {
  unsup: 0x80000001,
  policy: 0x80000002,
  invalid: 0x80000003,
  tls: 0x80000005,
  unknown: 0x80000006,
  tooBig: 0x80000009,
  ext: 0x8000000a,
};
const disk = (size = 65_536) => openRaw(memoryStorage(new Uint8Array(size)));

describe("NBD handshake", () => {
  it("greets with fixed newstyle and no zeroes", () => {
    const { greeting } = nbdBench({ "": disk() }).open();
    expect(greeting.toString("hex")).toBe("4e42444d4147494349484156454f50540003");
  });

  it("tells size, flags and block sizes of the export that is chosen", () => {
    const client = nbdBench({ "": disk() }).open().flags(3);
    client.option(NBD_OPT.structured);
    const replies = client.option(NBD_OPT.go, goData("", []));
    expect(replies.map(({ type }) => type)).toEqual([3, 3, 1]);
    expect(replies[0]?.data.toString("hex")).toBe("0003000000010000100002000000");
    expect(replies[1]?.data.readUInt16BE(0)).toBe(0);
    expect(replies[1]?.data.readBigUInt64BE(2)).toBe(65_536n);
    // Flags, flush, FUA, trim, write zeroes, DF, multi-conn, cache, fast zero.
    expect(replies[1]?.data.readUInt16BE(10)).toBe(0x1 | 0x4 | 0x8 | 0x20 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800);
  });

  it("offers no DF without structured replies", () => {
    const replies = nbdBench({ "": disk() }).open().flags(3).option(NBD_OPT.info, goData(""));
    expect((replies[1]?.data.readUInt16BE(10) ?? 0) & 0x80).toBe(0);
  });

  it("answers an export chosen the old way, with zeros behind it unless both sides left them out", () => {
    const bench = nbdBench({ a: disk(4096) });
    for (const [flags, length] of [
      [1, 134],
      [3, 10],
    ] as const) {
      const client = bench.open().flags(flags);
      client.pipe.write(optionBytes(NBD_OPT.exportName, Buffer.from("a")));
      const reply = client.pipe.read();
      expect(reply.length).toBe(length);
      expect(reply.readBigUInt64BE(0)).toBe(4096n);
    }
  });

  it("drops who chooses an unknown export the old way", () => {
    const client = nbdBench({ a: disk() }).open().flags(3);
    client.pipe.write(optionBytes(NBD_OPT.exportName, Buffer.from("b")));
    expect(client.pipe.ended).toBe(true);
  });

  it("lists exports with descriptions", () => {
    const bench = nbdBench({ one: disk(), two: disk() }, { export: { description: "some disk" } });
    const replies = bench.open().flags(3).option(NBD_OPT.list);
    expect(replies.map(({ type }) => type)).toEqual([2, 2, 1]);
    expect(replies[1]?.data).toEqual(Buffer.concat([sizedText("two"), Buffer.from("some disk")]));
  });

  it("refuses what it does not know and goes on", () => {
    const client = nbdBench({ "": disk() }).open().flags(3);
    const [reply] = client.option(77, Buffer.from("x"));
    expect(reply).toMatchObject({ option: 77, type: ERR.unsup });
    expect(client.option(NBD_OPT.go, goData("no such"))[0]).toMatchObject({ type: ERR.unknown });
    expect(client.option(NBD_OPT.startTls)[0]).toMatchObject({ type: ERR.policy });
    expect(client.option(NBD_OPT.list, Buffer.from("x"))[0]).toMatchObject({ type: ERR.invalid });
    expect(client.option(NBD_OPT.go, Buffer.from("\0\0\0\x09ab"))[0]).toMatchObject({ type: ERR.invalid });
    expect(client.option(NBD_OPT.go, sizedText("x".repeat(5000)))[0]).toMatchObject({ type: ERR.invalid });
    expect(client.option(NBD_OPT.list, Buffer.alloc(70_000))[0]).toMatchObject({ type: ERR.tooBig });
    expect(client.option(NBD_OPT.go, goData("")).at(-1)).toMatchObject({ type: 1 });
  });

  it("acknowledges the end of the handshake", () => {
    const client = nbdBench({ "": disk() }).open().flags(3);
    expect(client.option(NBD_OPT.abort)).toMatchObject([{ option: NBD_OPT.abort, type: 1 }]);
    expect(client.pipe.ended).toBe(true);
  });

  it("drops unknown client flags and options without their magic", () => {
    const bench = nbdBench({ "": disk() });
    expect(bench.open().flags(4).pipe.ended).toBe(true);
    const client = bench.open().flags(3);
    client.pipe.write(Buffer.alloc(16, 7));
    expect(client.pipe.ended).toBe(true);
  });

  it("takes an option in single bytes", () => {
    const client = nbdBench({ "": disk() }).open().flags(3);
    client.pipe.write(optionBytes(NBD_OPT.go, goData("")), 1);
    expect(client.pipe.read().length).toBeGreaterThan(60);
  });

  it("drops a client that chooses nothing in time", () => {
    const bench = nbdBench({ "": disk() });
    const slow = bench.open().flags(3);
    const quick = bench.open();
    quick.go();
    bench.clock.advance(10_001);
    expect(slow.pipe.ended).toBe(true);
    expect(quick.pipe.ended).toBe(false);
    expect(bench.events.find(({ kind }) => kind === "refused")).toMatchObject({
      reason: expect.stringContaining("10000"),
    });
  });

  it("lists and sets metadata contexts only with structured replies", () => {
    const client = nbdBench({ "": disk() }).open().flags(3);
    expect(client.option(NBD_OPT.listMeta, metaData("", []))[0]).toMatchObject({ type: ERR.invalid });
    client.option(NBD_OPT.structured);
    const names = (queries: string[], option = NBD_OPT.listMeta) =>
      client
        .option(option, metaData("", queries))
        .filter(({ type }) => type === 4)
        .map(({ data }) => data.subarray(4).toString());
    expect(names([])).toEqual(["base:allocation", "qemu:allocation-depth"]);
    expect(names(["base:"])).toEqual(["base:allocation"]);
    expect(names(["x-unknown:"])).toEqual([]);
    expect(names([], NBD_OPT.setMeta)).toEqual([]);
    expect(names(["qemu:allocation-depth"], NBD_OPT.setMeta)).toEqual(["qemu:allocation-depth"]);
  });

  it("takes extended headers once, and no structured replies after them", () => {
    const client = nbdBench({ "": disk() }).open().flags(3);
    expect(client.option(NBD_OPT.extended)[0]).toMatchObject({ type: 1 });
    expect(client.option(NBD_OPT.extended)[0]).toMatchObject({ type: ERR.invalid });
    expect(client.option(NBD_OPT.structured)[0]).toMatchObject({ type: ERR.ext });
  });

  it("tells nothing before TLS where TLS is required", () => {
    const client = nbdBench({ "": disk() }, { tls: "required" }).open().flags(3);
    for (const option of [NBD_OPT.list, NBD_OPT.go, NBD_OPT.info, NBD_OPT.structured, 99]) {
      expect(client.option(option, goData("nothing"))[0]).toMatchObject({ type: ERR.tls });
    }
    expect(client.option(NBD_OPT.startTls)).toMatchObject([{ type: 1 }]);
    expect(client.pipe.tlsStarted).toBe(true);
    client.pipe.connection?.secured();
    expect(client.option(NBD_OPT.startTls)[0]).toMatchObject({ type: ERR.invalid });
    expect(client.option(NBD_OPT.go, goData("")).at(-1)).toMatchObject({ type: 1 });
  });

  it("drops who sends in the clear behind the option that starts TLS", () => {
    const client = nbdBench({ "": disk() }, { tls: "required" }).open().flags(3);
    const both = Buffer.concat([
      optionBytes(NBD_OPT.startTls, Buffer.alloc(0)),
      optionBytes(NBD_OPT.list, Buffer.alloc(0)),
    ]);
    client.pipe.write(both);
    expect(client.pipe.ended).toBe(true);
  });
});
