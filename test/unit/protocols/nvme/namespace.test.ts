import { describe, expect, it } from "vitest";
import type { BlockDevice } from "../../../../src/block/block-device.js";
import { isZonedDevice } from "../../../../src/block/zoned-device.js";
import type { TargetLimits } from "../../../../src/protocols/nvme/limits.js";
import { type NamespacesOptions, namespacesOf } from "../../../../src/protocols/nvme/namespace.js";
import { Subsystem } from "../../../../src/protocols/nvme/subsystem.js";
import { Target } from "../../../../src/protocols/nvme/target.js";
import { checkedLimits } from "../../../../src/protocols/nvme/target-limits.js";
import { FakeClock, memoryImage, testIdentity } from "../../../support/nvme-pipe.js";

const KIB = 1024;
const MIB = 1024 * KIB;

const show = (device: BlockDevice, more: Partial<NamespacesOptions> = {}) =>
  namespacesOf(device, { firstNsid: 1, identity: testIdentity, ...more });

function zonedImage(zone: object, size = 8 * MIB): Promise<BlockDevice> {
  return memoryImage({ size, clusterSize: 4 * KIB, zone: { mode: "host-managed", size: MIB, ...zone } });
}

describe("the namespaces of a device", () => {
  it("are one for an ordinary disk, in blocks of 4096 bytes", async () => {
    const [only, ...others] = show(await memoryImage({ size: 3 * MIB }));
    expect(others).toEqual([]);
    expect(only).toMatchObject({ nsid: 1, blockSize: 4096, size: 768, deviceOffset: 0, zones: undefined });
  });

  it("have blocks of 512 bytes where something needs them", async () => {
    expect(show(await memoryImage({ size: MIB + 512 }))[0]).toMatchObject({ blockSize: 512, size: 2049 });
    expect(show(await zonedImage({ capacity: MIB - 512 }))[0]?.blockSize).toBe(512);
    const device = await zonedImage({});
    await device.write(0, new Uint8Array(512));
    expect(show(device)[0]?.blockSize).toBe(512);
    await device.write(512, new Uint8Array(4096 - 512));
    expect(show(device)[0]?.blockSize).toBe(4096);
    expect(show(device, { blockSize: 512 })[0]).toMatchObject({ blockSize: 512, size: 16384 });
  });

  it("cannot have blocks that do not fit", async () => {
    const device = await zonedImage({ capacity: MIB - 512 });
    expect(() => show(device, { blockSize: 4096 })).toThrow("zoneCapacity is 1048064");
  });

  it("are two for a disk with conventional zones", async () => {
    const parts = show(await zonedImage({ conventionalZones: 3, maxOpenZones: 2 }), { firstNsid: 4, readOnly: true });
    expect(parts.map((part) => [part.nsid, part.size, part.deviceOffset, part.readOnly])).toEqual([
      [4, 768, 0, true],
      [5, 1280, 3 * MIB, true],
    ]);
    expect(parts[0]?.zones).toBe(undefined);
    expect(parts[1]?.zones).toMatchObject({ zoneBlocks: 256, capacityBlocks: 256, zoneCount: 5, maxOpen: 2 });
    expect(parts[0]?.identity.uuid).not.toEqual(parts[1]?.identity.uuid);
  });

  it("leave out a short last zone, unless there is data in it", async () => {
    const device = await zonedImage({}, 2 * MIB + 64 * KIB);
    expect(show(device)[0]?.zones?.zoneCount).toBe(2);
    await device.write(2 * MIB, new Uint8Array(4096));
    expect(() => show(device)).toThrow(expect.objectContaining({ code: "NOT_SUPPORTED" }) as Error);
    expect(isZonedDevice(device)).toBe(true);
  });
});

describe("a subsystem", () => {
  it("wants an NQN, and one namespace per number", async () => {
    expect(() => new Subsystem({ nqn: "disk", serial: "1", hosts: "any" })).toThrow("must start with");
    expect(() => new Subsystem({ nqn: `nqn.${"x".repeat(220)}`, serial: "1", hosts: "any" })).toThrow("at most 223");
    const subsystem = new Subsystem({ nqn: "nqn.2026-01.test:a", serial: "1", hosts: "any" });
    const [namespace] = show(await memoryImage({ size: MIB }));
    if (namespace !== undefined) subsystem.addNamespace(namespace);
    expect(() => namespace !== undefined && subsystem.addNamespace(namespace)).toThrow("NSID 1 is in use");
    const far = show(await memoryImage({ size: MIB }), { firstNsid: 1025 })[0];
    expect(() => far !== undefined && subsystem.addNamespace(far)).toThrow("1 to 1024");
    const target = new Target({ clock: new FakeClock() });
    target.addSubsystem(subsystem);
    expect(() => target.addSubsystem(subsystem)).toThrow("the name is taken");
  });
});

describe("the limits of a target", () => {
  it.each<Partial<TargetLimits>>([
    { ioQueues: 0 },
    { queueEntries: 1 },
    { queueEntries: 5000 },
    { controllers: 0 },
    { inCapsuleBytes: 8 },
    { inCapsuleBytes: 128 * KIB },
    { h2cDataBytes: 2048 },
    { h2cDataBytes: 4098 },
    { transferBytes: 96 * KIB },
    { appendBytes: 2 * MIB },
    { transferBytes: 16 * MIB },
    { backlogBytes: 0 },
    { handshakeMilliseconds: 1.5 },
  ])("cannot be %j", (limits) => {
    expect(() => checkedLimits(limits)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }) as Error);
  });

  it("have defaults that fit together", () => {
    expect(checkedLimits({})).toEqual(checkedLimits({ ioQueues: 16 }));
    expect(checkedLimits({ transferBytes: 16 * MIB, writeBytesInFlight: 16 * MIB }).transferBytes).toBe(16 * MIB);
  });
});
