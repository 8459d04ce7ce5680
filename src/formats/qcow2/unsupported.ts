import type { ErrorCode } from "../../base/error-codes.js";
import { ZcowError } from "../../base/errors.js";
import type { UnresolvedHeader } from "./header.js";

/**
 * Features that are decoded and checked but not used yet. Where the disk could not even be read right the image is
 * refused; where only a write would do harm it opens read-only.
 */
interface UnsupportedFeature {
  readonly code: ErrorCode;
  readonly what: string;
  /** The guest's data can be read right without it. */
  readonly readable: boolean;
  readonly isUsed: (header: UnresolvedHeader) => boolean;
}

const FEATURES: readonly UnsupportedFeature[] = [
  {
    code: "UNSUPPORTED_BITMAPS",
    what: "persistent bitmaps",
    readable: true,
    isUsed: (header) => header.bitmaps !== undefined,
  },
];

/** Throws the `UNSUPPORTED_*` code of the first feature that stands in the way of opening the image. */
export function refuseUnsupported(header: UnresolvedHeader, writable: boolean): void {
  for (const { code, what, readable, isUsed } of FEATURES) {
    if (!isUsed(header) || (readable && !writable)) continue;
    const allowed = readable ? "; it can be opened read-only" : "";
    throw new ZcowError(code, `The image uses ${what}, which is not supported yet${allowed}`, {
      data: { structure: "header", field: what },
    });
  }
}
