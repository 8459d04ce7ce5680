import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { inspectImage } from "../../../src/jobs/inspect/inspect.js";
import { referenceReach } from "../../../src/jobs/inspect/references.js";
import type { InspectReport } from "../../../src/jobs/inspect/report.js";
import { memoryStorage } from "../../../src/storage/memory-storage.js";
import { BAD_HEADERS } from "../../corpus/bad-headers.js";
import {
  all,
  type Change,
  fields,
  plainImage,
  put32,
  put64,
  putExtensions,
  text,
  zonedImage,
} from "../../corpus/images.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const path = temporaryFolder();

const inspectBytes = (bytes: Uint8Array, options = {}): Promise<InspectReport> =>
  inspectImage(memoryStorage(bytes), options);

async function inspectSpoilt(spoil: Change): Promise<InspectReport> {
  const bytes = await plainImage();
  return inspectBytes(spoil(bytes) ?? bytes);
}

const codes = (report: InspectReport): string[] => report.findings.map(({ level, code }) => `${level} ${code}`);

/** A backing file name at byte 1024, and its format in an extension. */
const backing = (name: string, format?: string): Change =>
  all(
    format === undefined ? putExtensions([]) : putExtensions([[0xe2792aca, text(format)]]),
    put64(8, 1024),
    put32(16, text(name).length),
    (bytes) => bytes.set(text(name), 1024),
  );

describe("inspectImage", () => {
  it("has nothing against a fresh image, and tells what it would take", async () => {
    const report = await inspectBytes(await plainImage());
    expect(report).toMatchObject({ format: "qcow2", virtualSize: 2 ** 26, verdict: "none", findings: [], marks: [] });
    expect(report.resources).toEqual({
      // One L1 entry and one cluster of refcount table; 1024 clusters of 8 bytes of mapping and 2 of count, in clusters.
      tablesInMemory: 8 + 65_536,
      tablesWhenFull: 2 * 65_536,
      whenExpanded: 2 ** 26,
    });
    expect((await inspectBytes(await zonedImage())).verdict).toBe("none");
  });

  it.each([
    ["base.qcow2", "qcow2", ["decision backing-file"]],
    ["/etc/passwd", "raw", ["danger backing-file-outside"]],
    ["sub/../../base", "raw", ["danger backing-file-outside"]],
    ["nbd://host/x", "raw", ["danger backing-file-protocol"]],
    ['json:{"driver":"raw"}', "raw", ["danger backing-file-protocol"]],
    ["base.qcow2", undefined, ["danger backing-format-missing", "decision backing-file"]],
  ])("tells of the backing file %s with format %s", async (name, format, expected) => {
    const report = await inspectSpoilt(backing(name, format));
    expect(codes(report)).toEqual(expected);
    expect(report.references).toMatchObject([{ role: "backing file", name, format }]);
    expect(report.verdict).toBe(expected[0]?.split(" ")[0]);
  });

  it("tells of an external data file", async () => {
    const report = await inspectSpoilt(all(put64(72, 4), putExtensions([[0x44415441, text("../data.raw")]])));
    expect(codes(report)).toEqual(["danger data-file-outside"]);
  });

  it.each([
    ["compatible bit", put64(80, 1n << 40n), "unknown-feature"],
    ["autoclear bit", put64(88, 1n << 40n), "unknown-feature"],
    ["extension", putExtensions([[0x12345678, fields(1)]]), "unknown-extension"],
  ])("notes an unknown %s, which is no reason against it", async (_what, spoil, code) => {
    const report = await inspectSpoilt(spoil);
    expect(codes(report)).toEqual([`note ${code}`]);
    expect(report.verdict).toBe("none");
  });

  it("leaves damage and encryption to be decided about", async () => {
    expect(codes(await inspectSpoilt(put64(72, 3)))).toEqual(["decision corrupt", "decision dirty"]);
    expect(codes(await inspectSpoilt(put32(32, 1)))).toEqual(["decision encrypted"]);
  });

  it("takes a size limit and a promised format", async () => {
    const image = await plainImage();
    expect(codes(await inspectBytes(image, { maxVirtualSize: 2 ** 26 }))).toEqual([]);
    expect(codes(await inspectBytes(image, { maxVirtualSize: 2 ** 26 - 1 }))).toEqual(["decision virtual-size"]);
    expect(codes(await inspectBytes(image, { expectedFormat: "qcow2" }))).toEqual([]);
    expect(codes(await inspectBytes(image, { expectedFormat: "raw" }))).toEqual(["danger format-mismatch"]);
  });

  it("sees what another program may take the file for", async () => {
    const iso = new Uint8Array(40_000);
    iso.set(text("CD001"), 32_769);
    expect(await inspectBytes(iso)).toMatchObject({ format: "raw", marks: ["ISO 9660 file system"], verdict: "none" });
    const both = await plainImage();
    both.set(text("CD001"), 32_769);
    expect(codes(await inspectBytes(both))).toEqual(["decision ambiguous-format"]);
  });

  it.each(BAD_HEADERS.filter(({ onlyForWriting, code }) => onlyForWriting !== true && code !== "QCOW2_MAGIC"))(
    "calls $code ($what) a danger",
    async ({ spoil, base }) => {
      const bytes = await plainImage(base);
      const report = await inspectBytes(spoil(bytes) ?? bytes);
      expect(report.verdict).toBe("danger");
      expect(report.findings[0]?.code).toMatch(/^header-/);
    },
  );

  it("gives a report for whatever bytes there are in the first two sectors", async () => {
    const image = await plainImage({ clusterSize: 512, size: 2 ** 20 });
    const change = fc.record({ at: fc.nat(1023), value: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 12 }), async (changes) => {
        const bytes = image.slice();
        for (const { at, value } of changes) bytes[at] = value;
        const report = await inspectBytes(bytes);
        expect(["none", "decision", "danger"]).toContain(report.verdict);
      }),
      { numRuns: 500 },
    );
  });

  it("opens no file that the image names: not even a pipe that nobody writes to", async () => {
    execFileSync("mkfifo", [path("pipe")]);
    const bytes = await plainImage();
    backing("pipe", "raw")(bytes);
    writeFileSync(path("image.qcow2"), bytes);
    expect((await inspectImage(path("image.qcow2"))).verdict).toBe("decision");
    writeFileSync(
      path("disk.vmdk"),
      '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 8 FLAT "pipe" 0\n',
    );
    expect(await inspectImage(path("disk.vmdk"))).toMatchObject({
      format: "vmdk",
      virtualSize: 4096,
      references: [{ role: "extent file", name: "pipe", reach: "beside" }],
      verdict: "decision",
    });
  });

  it("fails for an image that is not there and a format that nobody knows", async () => {
    await expect(inspectImage(path("missing"))).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(inspectImage(path("missing"), { expectedFormat: "zip" as "raw" })).rejects.toMatchObject({
      code: "FORMAT_UNKNOWN",
    });
  });
});

describe("referenceReach", () => {
  it.each([
    ["disk", "beside"],
    ["./sub/disk", "beside"],
    ["a..b/c", "beside"],
    ["sub/with:colon", "beside"],
    ["..", "outside"],
    ["../disk", "outside"],
    ["/dev/sda", "outside"],
    ["file:disk", "beside"],
    ["file:/etc/passwd", "outside"],
    ["file:///etc/passwd", "outside"],
    ["http://host/disk", "protocol"],
    ["json:{}", "protocol"],
    ["fat:rw:/etc", "protocol"],
  ])("%s leads %s", (name, reach) => expect(referenceReach(name)).toBe(reach));
});
