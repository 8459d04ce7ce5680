import { viewOf } from "../base/bytes.js";
import { ZcowError } from "../base/errors.js";
import type { BlockDevice } from "../block/block-device.js";
import type { FormatDriver, OpenDeviceOptions } from "../block/format-driver.js";
import type { Storage } from "../storage/storage.js";
import type { StoredDisk } from "./stored-disk.js";

/** Opens an image of a format that is only read. */
type DiskOpener = (storage: Storage, options: OpenDeviceOptions) => Promise<StoredDisk>;

function readOnlyDriver(name: string, probe: FormatDriver["probe"], openDisk: DiskOpener): FormatDriver {
  return {
    name,
    probe,
    creatable: false,
    compresses: false,
    open: async (storage, options): Promise<BlockDevice> => {
      requireReadOnly(name, storage, options);
      const disk = await openDisk(storage, options);
      return new (await import("./stored-disk.js")).StoredDiskDevice(disk);
    },
  };
}

function requireReadOnly(format: string, storage: Storage, options: OpenDeviceOptions): void {
  if (options.readOnly ?? !storage.capabilities.writable) return;
  throw new ZcowError("FORMAT_READ_ONLY", `${storage.name} is ${format}, which can be opened for reading only`, {
    data: { path: storage.name, value: format },
  });
}

const VDI_SIGNATURE_AT = 0x40;
const VDI_SIGNATURE = 0xbeda_107f;
/** "KDMV" and "COWD", the marks of VMDK extents. */
const VMDK_MARKS: readonly string[] = ["KDMV", "COWD"];
const VMDK_DESCRIPTOR = "# Disk DescriptorFile";

/** The formats of other virtual machines, of which disks are read; each is loaded when the first image of it is opened. */
export const FOREIGN_DRIVERS: readonly FormatDriver[] = [
  readOnlyDriver(
    "vmdk",
    (head) => VMDK_MARKS.includes(textOf(head, 4)) || textOf(head, VMDK_DESCRIPTOR.length) === VMDK_DESCRIPTOR,
    async (storage, options) => (await (await import("./vmdk/open.js")).openVmdk(storage, options)).disk,
  ),
  readOnlyDriver(
    "vhdx",
    (head) => textOf(head, 8) === "vhdxfile",
    async (storage) => (await import("./vhdx/disk.js")).openVhdx(storage),
  ),
  readOnlyDriver(
    "vpc",
    (head) => textOf(head, 8) === "conectix",
    async (storage) => (await import("./vpc/disk.js")).openVpc(storage),
  ),
  readOnlyDriver(
    "vdi",
    (head) => head.length >= VDI_SIGNATURE_AT + 4 && viewOf(head).getUint32(VDI_SIGNATURE_AT, true) === VDI_SIGNATURE,
    async (storage) => (await import("./vdi/disk.js")).openVdi(storage),
  ),
];

function textOf(head: Uint8Array, length: number): string {
  return String.fromCharCode(...head.subarray(0, length));
}
