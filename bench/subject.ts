import { type BlockDevice, isZonedDevice, openImage, type ZonedDevice } from "../src/index.js";
import type { RequestRow } from "./contestants.js";

/**
 * The measured side: opens an image with the public API, sends the row of requests given as JSON in the first
 * argument, and prints the time of the requests alone, as `qemu-img bench` does. Requests keep the order and the offsets of
 * `qemu-img bench`: each `step` bytes after the one before, modulo the disk.
 */
type Issue = (offset: number, slot: number) => void | Promise<unknown>;

/** The one way to page-aligned memory in plain Node; its types come with the DOM library, which Node code does not load. */
interface WasmGlobal {
  readonly WebAssembly: { readonly Memory: new (size: { initial: number }) => { readonly buffer: ArrayBuffer } };
}

/** Page-aligned buffers, which direct I/O needs and nothing else minds. */
function alignedBuffers(count: number, size: number): Uint8Array[] {
  const { Memory } = (globalThis as unknown as WasmGlobal).WebAssembly;
  const memory = new Memory({ initial: Math.ceil((count * size) / 65536) });
  return Array.from({ length: count }, (_, slot) => new Uint8Array(memory.buffer, slot * size, size).fill(0xa5));
}

function issuer(device: BlockDevice, row: RequestRow, buffers: readonly Uint8Array[]): Issue {
  if (row.kind === "read") return (offset, slot) => device.read(offset, buffers[slot] as Uint8Array);
  if (row.kind === "write") return (offset, slot) => device.write(offset, buffers[slot] as Uint8Array);
  if (!isZonedDevice(device)) throw new Error(`${row.image} is not zoned`);
  const zoned: ZonedDevice = device;
  const zoneSize = zoned.limits.zoned?.zoneSize ?? 0;
  return (offset, slot) => {
    const wait = zoned.append(offset - (offset % zoneSize), buffers[slot] as Uint8Array);
    return typeof wait === "number" ? undefined : wait;
  };
}

async function sendAll(row: RequestRow, size: number, issue: Issue): Promise<void> {
  let left = row.count;
  let offset = 0;
  const lastStart = size - row.size;
  const worker = async (slot: number): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const at = offset;
      offset += row.step;
      if (offset > lastStart) offset %= size;
      const wait = issue(at, slot);
      if (wait !== undefined) await wait;
    }
  };
  await Promise.all(Array.from({ length: row.depth }, (_, slot) => worker(slot)));
}

async function main(row: RequestRow): Promise<void> {
  const device = await openImage(row.image, {
    format: "qcow2",
    readOnly: row.kind === "read",
    file: { direct: row.direct === true },
  });
  const buffers = alignedBuffers(row.depth, row.size);
  const start = process.hrtime.bigint();
  await sendAll(row, device.size, issuer(device, row, buffers));
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  await device.close();
  console.log(JSON.stringify({ seconds }));
}

void main(JSON.parse(process.argv[2] ?? "") as RequestRow);
