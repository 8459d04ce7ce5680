/** What Identify tells about a namespace (CNS 00h, 03h, 05h, 08h; NVM and ZNS command sets). */
import { COPY_RANGES, type TargetLimits } from "../limits.js";
import type { Namespace } from "../namespace.js";
import { COMMAND_SET } from "../opcodes.js";
import { IDENTIFY_LENGTH } from "./identify-controller.js";

/** How hosts may see the namespaces of a subsystem. */
export interface Sharing {
  /** Through several controllers. */
  readonly shared: boolean;
}

const NVM_FIELD = {
  size: 0,
  capacity: 8,
  used: 16,
  features: 24,
  sharing: 30,
  preferredWriteGranularity: 64,
  preferredWriteAlignment: 66,
  preferredDeallocateGranularity: 68,
  preferredDeallocateAlignment: 70,
  optimalWriteSize: 72,
  copySourceBlocks: 74,
  copyBlocks: 76,
  copyRanges: 80,
  attributes: 99,
  nguid: 104,
  formats: 128,
} as const;

const ZNS_FIELD = { optional: 2, maximumActive: 4, maximumOpen: 8, formats: 2816 } as const;

/** NSFEAT bit 4: the preferred sizes are told. */
const PREFERENCES_TOLD = 1 << 4;
/** NSATTR bit 0: write protected. */
const WRITE_PROTECTED = 1;
/** OZCS bit 0: reads may cross zones. */
const READS_CROSS_ZONES = 1;
const NO_LIMIT = 0xffff_ffff;
/** NSTAT bit 0: ready. */
const READY = 1;

/** CNS 00h; also what CNS 05h answers for nothing else. */
export function identifyNamespace(namespace: Namespace, sharing: Sharing, limits: TargetLimits): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_LENGTH);
  const view = new DataView(bytes.buffer);
  const size = BigInt(namespace.size);
  for (const field of [NVM_FIELD.size, NVM_FIELD.capacity, NVM_FIELD.used]) view.setBigUint64(field, size, true);
  bytes[NVM_FIELD.sharing] = sharing.shared ? 1 : 0;
  putPreferences(bytes, view, namespace);
  const largestCopy = Math.min(limits.transferBytes / namespace.blockSize, 0xffff);
  view.setUint16(NVM_FIELD.copySourceBlocks, largestCopy, true);
  view.setUint32(NVM_FIELD.copyBlocks, largestCopy, true);
  bytes[NVM_FIELD.copyRanges] = COPY_RANGES - 1;
  bytes[NVM_FIELD.attributes] = namespace.readOnly ? WRITE_PROTECTED : 0;
  bytes.set(namespace.identity.nguid, NVM_FIELD.nguid);
  bytes[NVM_FIELD.formats + 2] = namespace.blockShift;
  return bytes;
}

/** Requests of whole clusters avoid copying; all five fields count from 0. */
function putPreferences(bytes: Uint8Array, view: DataView, namespace: Namespace): void {
  const blocks = namespace.device.limits.optimalAlignment / namespace.blockSize;
  if (!Number.isInteger(blocks) || blocks < 1 || blocks > 0x1_0000) return;
  bytes[NVM_FIELD.features] = PREFERENCES_TOLD;
  const { preferredWriteGranularity, preferredWriteAlignment } = NVM_FIELD;
  const { preferredDeallocateGranularity, preferredDeallocateAlignment, optimalWriteSize } = NVM_FIELD;
  const fields = [
    preferredWriteGranularity,
    preferredWriteAlignment,
    preferredDeallocateGranularity,
    preferredDeallocateAlignment,
    optimalWriteSize,
  ];
  for (const field of fields) view.setUint16(field, blocks - 1, true);
}

/** CNS 03h: the names of a namespace, and its command set, without which Linux ignores it. */
export function identifyDescriptors(namespace: Namespace): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_LENGTH);
  const { nguid, uuid } = namespace.identity;
  const commandSet = Uint8Array.of(namespace.zones === undefined ? COMMAND_SET.nvm : COMMAND_SET.zns);
  let at = 0;
  for (const [type, value] of [
    [2, nguid],
    [3, uuid],
    [4, commandSet],
  ] as const) {
    bytes[at] = type;
    bytes[at + 1] = value.length;
    bytes.set(value, at + 4);
    at += 4 + value.length;
  }
  return bytes;
}

/** CNS 05h, CSI 2. Only for zoned namespaces. */
export function identifyZnsNamespace(namespace: Namespace): Uint8Array | undefined {
  const { zones } = namespace;
  if (zones === undefined) return undefined;
  const bytes = new Uint8Array(IDENTIFY_LENGTH);
  const view = new DataView(bytes.buffer);
  view.setUint16(ZNS_FIELD.optional, READS_CROSS_ZONES, true);
  view.setUint32(ZNS_FIELD.maximumActive, fromZero(zones.maxActive), true);
  // Hosts refuse a namespace with more open than active zones.
  const openLimit = zones.maxOpen === 0 ? zones.maxActive : zones.maxOpen;
  view.setUint32(ZNS_FIELD.maximumOpen, fromZero(openLimit), true);
  view.setBigUint64(ZNS_FIELD.formats, BigInt(zones.zoneBlocks), true);
  return bytes;
}

/** Resources count from 0, and FFFFFFFFh is no limit. */
function fromZero(limit: number): number {
  return limit === 0 ? NO_LIMIT : limit - 1;
}

/** CNS 08h: what holds for a namespace of any command set. */
export function identifyIndependent(namespace: Namespace, sharing: Sharing): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_LENGTH);
  bytes[1] = sharing.shared ? 1 : 0;
  bytes[8] = namespace.readOnly ? WRITE_PROTECTED : 0;
  bytes[14] = READY;
  return bytes;
}
