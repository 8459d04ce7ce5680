import { isZcowError } from "../../base/errors.js";
import { alignUp, ceilDiv } from "../../base/integers.js";
import { EXTENSION, extensionName, isKnownExtension } from "../../formats/qcow2/extensions.js";
import { AUTOCLEAR, COMPATIBLE, INCOMPATIBLE } from "../../formats/qcow2/features.js";
import { qcow2Geometry } from "../../formats/qcow2/geometry.js";
import type { FeatureName, Qcow2Header } from "../../formats/qcow2/header.js";
import { readHeader } from "../../formats/qcow2/header-read.js";
import type { HeaderMode } from "../../formats/qcow2/header-verdict.js";
import { SNAPSHOT_ENTRY_MIN_BYTES, TABLE_ENTRY_BYTES } from "../../formats/qcow2/limits.js";
import type { Storage } from "../../storage/storage.js";
import { reportReference } from "./references.js";
import type { Findings, ImageReference, InspectResources } from "./report.js";

/** What the header of a qcow2 image tells. */
export interface InspectedQcow2 {
  readonly virtualSize: number | undefined;
  readonly references: readonly ImageReference[];
  readonly resources: InspectResources;
}

const UNKNOWN: InspectResources = { tablesInMemory: undefined, tablesWhenFull: undefined, whenExpanded: undefined };

/** Inspects the header; of damaged ones as much as can be told. Fails only when the storage does. */
export async function inspectQcow2(storage: Storage, findings: Findings): Promise<InspectedQcow2> {
  const header = await soundestHeader(storage, findings);
  if (header === undefined) return { virtualSize: undefined, references: [], resources: UNKNOWN };
  reportState(header, findings);
  reportUnknown(header, findings);
  return { virtualSize: header.size, references: references(header, findings), resources: resources(header) };
}

/** The header as a reader takes it; failing that, as `check` does, with why it was refused. */
async function soundestHeader(storage: Storage, findings: Findings): Promise<Qcow2Header | undefined> {
  const modes: readonly HeaderMode[] = ["open", "check"];
  const said = new Set<string>();
  const once = (level: "danger" | "note", code: string, message: string): void => {
    if (!said.has(message)) findings.add(level, code, message);
    said.add(message);
  };
  for (const mode of modes) {
    try {
      return await readHeader(storage, {
        mode,
        onFinding: ({ message }) => once(mode === "open" ? "note" : "danger", "header-fault", message),
      });
    } catch (error) {
      if (!isZcowError(error) || error.category === "storage") throw error;
      once("danger", "header-refused", error.message);
    }
  }
  return undefined;
}

function references(header: Qcow2Header, findings: Findings): ImageReference[] {
  const { backingFileName, backingFormat, dataFileName } = header;
  const found: ImageReference[] = [];
  if (dataFileName !== undefined) found.push(reportReference("data file", dataFileName, "raw", findings));
  if (backingFileName !== undefined) {
    found.push(reportReference("backing file", backingFileName, backingFormat, findings));
    if (backingFormat === undefined) {
      const message = "does not say the format of its backing file: who wrote that disk may choose how it is read";
      findings.add("danger", "backing-format-missing", message);
    }
  }
  return found;
}

function reportState({ features, cryptMethod, snapshotCount, bitmaps }: Qcow2Header, findings: Findings): void {
  if ((features.incompatible & INCOMPATIBLE.corrupt) !== 0n) {
    findings.add("decision", "corrupt", "is marked corrupt: repair a copy of it first");
  }
  if ((features.incompatible & INCOMPATIBLE.dirty) !== 0n) {
    findings.add("decision", "dirty", "was not closed after writing: opening it for writing repairs it");
  }
  if (cryptMethod !== 0) {
    const method = cryptMethod === 1 ? "AES, which does not protect it" : "LUKS";
    findings.add("decision", "encrypted", `is encrypted (${method})`);
  }
  if (snapshotCount > 0) findings.add("note", "snapshots", `has internal snapshots: ${snapshotCount}`);
  if (bitmaps !== undefined) findings.add("note", "bitmaps", `has persistent bitmaps: ${bitmaps.count}`);
}

const union = (bits: Readonly<Record<string, bigint>>): bigint =>
  Object.values(bits).reduce((sum, bit) => sum | bit, 0n);

function reportUnknown(header: Qcow2Header, findings: Findings): void {
  const { features, featureNames, extensions, unknownBytes } = header;
  const words = [
    ["compatible", features.compatible & ~union(COMPATIBLE)],
    ["autoclear", features.autoclear & ~union(AUTOCLEAR)],
  ] as const;
  for (const [word, bits] of words) {
    for (const bit of setBits(bits)) {
      const name = featureNames.find((entry: FeatureName) => entry.type === word && entry.bit === bit)?.name;
      const called = name === undefined ? "" : `, which it calls '${name}'`;
      findings.add("note", "unknown-feature", `has the unknown ${word} feature bit ${bit}${called}`);
    }
  }
  for (const { type, data } of extensions) {
    if (isKnownExtension(type)) continue;
    findings.add("note", "unknown-extension", `has an ${extensionName(type)} of ${data.length} bytes`);
  }
  if (unknownBytes.some((byte) => byte !== 0)) {
    findings.add("note", "unknown-header-bytes", "has header fields that are not known");
  }
  if (extensions.some(({ type }) => type === EXTENSION.session)) {
    findings.add("note", "session", "has the mark of a session with a journal");
  }
}

function setBits(word: bigint): number[] {
  return Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => (word & (1n << BigInt(bit))) !== 0n);
}

function resources(header: Qcow2Header): InspectResources {
  const { version, clusterBits, size, refcountOrder, features } = header;
  const extendedL2 = (features.incompatible & INCOMPATIBLE.extendedL2) !== 0n;
  const { clusterSize } = qcow2Geometry({ size, version, clusterBits, refcountOrder, extendedL2 });
  const clusters = ceilDiv(size, clusterSize);
  const mapping = alignUp(clusters * TABLE_ENTRY_BYTES * (extendedL2 ? 2 : 1), clusterSize);
  const counts = alignUp(Math.ceil((clusters * 2 ** refcountOrder) / 8), clusterSize);
  const inMemory =
    header.l1Size * TABLE_ENTRY_BYTES +
    header.refcountTableClusters * clusterSize +
    header.snapshotCount * SNAPSHOT_ENTRY_MIN_BYTES +
    (header.bitmaps?.length ?? 0);
  return { tablesInMemory: inMemory, tablesWhenFull: mapping + counts, whenExpanded: size };
}
