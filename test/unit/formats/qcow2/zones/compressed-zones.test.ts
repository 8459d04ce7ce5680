import { expect, it } from "vitest";
import { memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { compressibleBytes } from "../../../../support/random.js";
import { ReferenceImage } from "../../../../support/reference-image.js";
import { at, bench, CLUSTER, newZonedImage, openZoned } from "./zone-image.js";

/** A compressed write to a sequential zone is a write: at the pointer, and it moves it. */

const bytesAt = (offset: number, clusters: number): Uint8Array => compressibleBytes(1, offset, clusters * CLUSTER);

it("moves the write pointer, and the data is there after the image was opened anew", async () => {
  const storage = await newZonedImage();
  const device = await openZoned(storage);
  await device.writeCompressed(at(2), bytesAt(at(2), 2));
  await device.writeCompressed(at(2) + 2 * CLUSTER, bytesAt(at(2) + 2 * CLUSTER, 1));
  await device.write(at(2) + 3 * CLUSTER, bytesAt(at(2) + 3 * CLUSTER, 1));
  expect(device.report(at(2), 1)[0]?.writePointer).toBe(at(2) + 4 * CLUSTER);
  await device.close();
  expect(new ReferenceImage(storage.bytes()).mapping(at(2) / CLUSTER).kind).toBe("compressed");
  const reader = await openZoned(memoryStorage(storage.bytes()), { readOnly: true });
  const back = new Uint8Array(4 * CLUSTER);
  await reader.read(at(2), back);
  expect(Buffer.compare(back, bytesAt(at(2), 4))).toBe(0);
  await reader.close();
});

it("is refused beside the pointer, across zones, past the capacity, and for parts of clusters", async () => {
  const device = await openZoned(await newZonedImage());
  const refused = (offset: number, clusters: number, code: string): void => {
    expect(() => device.writeCompressed(offset, bytesAt(offset, clusters))).toThrow(expect.objectContaining({ code }));
  };
  refused(at(2) + CLUSTER, 1, "ZONE_INVALID_WRITE");
  refused(at(2), 20, "ZONE_BOUNDARY");
  refused(at(2), 11, "ZONE_BOUNDARY");
  refused(at(2) + 512, 1, "MISALIGNED");
  expect(device.report(at(2), 1)[0]?.writePointer).toBe(at(2));
  await device.close();
});

it("is like any other compressed write in a conventional zone: refused where something is stored", async () => {
  const device = await openZoned(await newZonedImage());
  await device.writeCompressed(0, bytesAt(0, 2));
  await expect(device.writeCompressed(CLUSTER, bytesAt(CLUSTER, 1))).rejects.toMatchObject({
    code: "COMPRESSED_REWRITE",
  });
  await device.close();
});

it("replaces what a write that was never acknowledged left above the pointer", async () => {
  const { device, killed, table } = await bench();
  await device.flush();
  await device.writeCompressed(at(2), bytesAt(at(2), 3));
  const file = killed();
  const bytes = file.bytes();
  // As after a crash that kept the mapping and lost the pointer.
  new DataView(bytes.buffer).setBigUint64(table + 2 * 8, BigInt(at(2)));
  const again = await openZoned(memoryStorage(bytes));
  expect(again.report(at(2), 1)[0]?.writePointer).toBe(at(2));
  const other = compressibleBytes(7, at(2), 3 * CLUSTER);
  await again.writeCompressed(at(2), other);
  const back = new Uint8Array(3 * CLUSTER);
  await again.read(at(2), back);
  expect(Buffer.compare(back, other)).toBe(0);
  await again.close();
  await device.close();
});

it("frees its space when the zone is reset", async () => {
  const storage = await newZonedImage();
  const device = await openZoned(storage);
  await device.writeCompressed(at(2), bytesAt(at(2), 3));
  await device.flush();
  await device.resetZones(at(2), 65_536);
  await device.close();
  const image = new ReferenceImage(storage.bytes());
  expect(image.mapping(at(2) / CLUSTER).kind).toBe("unallocated");
});
