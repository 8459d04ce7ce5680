import { ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import type { NodeOptions } from "../../block/node-options.js";
import { offsetStorage } from "../../storage/offset-storage.js";
import type { Storage } from "../../storage/storage.js";

/** The part of a file that is a raw disk. */
export interface RawWindow {
  readonly offset: number;
  readonly size: number | undefined;
}

/** Takes `offset` and `size` from the options of a raw disk. */
export function takeWindow(options: NodeOptions): RawWindow | undefined {
  const offset = options.takeNumber("offset", parseSize);
  const size = options.takeNumber("size", parseSize);
  return offset === undefined && size === undefined ? undefined : { offset: offset ?? 0, size };
}

/** `storage` as the window shows it; it is closed when it is too small (`INVALID_ARGUMENT`). */
export async function inWindow(storage: Storage, { offset, size }: RawWindow): Promise<Storage> {
  const end = storage.size();
  if (offset <= end && offset + (size ?? 0) <= end) return offsetStorage(storage, offset, size);
  await storage.close();
  const what = offset > end ? `offset of ${offset}` : `offset of ${offset} and size of ${size}`;
  throw new ZcowError("INVALID_ARGUMENT", `${storage.name} has ${end} bytes: it is too small for the ${what}`, {
    data: { option: "offset", value: offset, limit: end },
    stockText:
      offset > end
        ? `Offset (${offset}) cannot be greater than size of the containing file (${end})`
        : `The sum of offset (${offset}) and size (${size}) has to be smaller or equal to the  actual size of the containing file (${end})`,
  });
}
