import { isZcowError } from "../../base/errors.js";
import { alignUp } from "../../base/integers.js";
import { SECTOR_SIZE } from "../../base/units.js";
import type { FormatDriver } from "../../block/format-driver.js";
import { type FormatName, formatDriver, probeFormat } from "../../formats/registry.js";
import { openFileStorage } from "../../storage/file-storage.js";
import type { Storage } from "../../storage/storage.js";
import { marksOf } from "./marks.js";
import { reportReference } from "./references.js";
import { Findings, type InspectReport, type InspectResources } from "./report.js";

/** What is asked of an image that is inspected. */
export interface InspectImageOptions {
  /** The format that the image is said to have: anything else is a danger. */
  readonly expectedFormat?: FormatName;
  /** Largest virtual size in bytes that is fine; above 0. Default: any. */
  readonly maxVirtualSize?: number;
  /** Ignore the locks of other processes. */
  readonly forceShare?: boolean;
}

/** What one format tells. */
type Inspected = Pick<InspectReport, "virtualSize" | "references" | "resources">;

const NO_RESOURCES: InspectResources = {
  tablesInMemory: undefined,
  tablesWhenFull: undefined,
  whenExpanded: undefined,
};

/**
 * Tells what is to be known of an image from somebody else before it is opened. Reads headers only, opens no file that the
 * image names, changes nothing, and takes no word of the image for granted. A storage that was passed in stays open.
 *
 * Damage and hostile headers are findings. Fails with the codes of the storage, and `FORMAT_UNKNOWN` for an expected
 * format that is not known.
 */
export async function inspectImage(
  source: string | Storage,
  options: InspectImageOptions = {},
): Promise<InspectReport> {
  if (options.expectedFormat !== undefined) formatDriver(options.expectedFormat);
  if (typeof source !== "string") return inspectStorage(source, options);
  const storage = await openFileStorage(source, { lock: { use: "inspect" }, forceShare: options.forceShare ?? false });
  try {
    return await inspectStorage(storage, options);
  } finally {
    await storage.close();
  }
}

async function inspectStorage(storage: Storage, options: InspectImageOptions): Promise<InspectReport> {
  const findings = new Findings();
  const driver = await probeFormat(storage);
  const marks = await marksOf(storage);
  reportFormat(driver.name, marks, options.expectedFormat, findings);
  const { virtualSize, references, resources } = await inspectContent(storage, driver, findings);
  reportSize(virtualSize, options.maxVirtualSize, findings);
  const sorted = findings.sorted();
  const worst = sorted[0]?.level ?? "note";
  return {
    filename: storage.name,
    format: driver.name,
    marks,
    fileSize: storage.size(),
    actualSize: storage.allocatedSize(),
    virtualSize,
    references,
    resources,
    findings: sorted,
    verdict: worst === "note" ? "none" : worst,
  };
}

function reportFormat(
  format: string,
  marks: readonly string[],
  expected: string | undefined,
  findings: Findings,
): void {
  if (expected !== undefined && expected !== format) {
    findings.add("danger", "format-mismatch", `is ${format} by its content, and was said to be ${expected}`);
  }
  if (format === "raw") {
    if (marks.length > 0) findings.add("note", "content", `holds: ${marks.join(", ")}`);
    return;
  }
  for (const mark of marks) {
    const message = `also has the mark of: ${mark}; another program may take it for that`;
    findings.add("decision", "ambiguous-format", message);
  }
}

function reportSize(virtualSize: number | undefined, limit: number | undefined, findings: Findings): void {
  if (virtualSize === undefined || limit === undefined || virtualSize <= limit) return;
  findings.add("decision", "virtual-size", `has a disk of ${virtualSize} bytes, above the limit of ${limit}`);
}

async function inspectContent(storage: Storage, driver: FormatDriver, findings: Findings): Promise<Inspected> {
  if (driver.name === "qcow2") return (await import("./qcow2.js")).inspectQcow2(storage, findings);
  if (driver.name === "raw") {
    const virtualSize = alignUp(storage.size(), SECTOR_SIZE);
    return { virtualSize, references: [], resources: { ...NO_RESOURCES, whenExpanded: virtualSize } };
  }
  try {
    return await inspectForeign(storage, driver, findings);
  } catch (error) {
    if (!isZcowError(error) || error.category === "storage") throw error;
    findings.add("danger", "header-refused", error.message);
    return { virtualSize: undefined, references: [], resources: NO_RESOURCES };
  }
}

const VMDK_DESCRIPTOR_START = "#".charCodeAt(0);

async function inspectForeign(storage: Storage, driver: FormatDriver, findings: Findings): Promise<Inspected> {
  const first = new Uint8Array(1);
  await storage.read(0, first);
  if (driver.name === "vmdk" && first[0] === VMDK_DESCRIPTOR_START) return inspectDescriptor(storage, findings);
  const { describeForeign } = await import("../info-foreign.js");
  const { virtualSize } = await describeForeign(storage, driver, "deny");
  return { virtualSize, references: [], resources: { ...NO_RESOURCES, whenExpanded: virtualSize } };
}

/** A descriptor is nothing but references: its files are not opened to see whether they are what it says. */
async function inspectDescriptor(storage: Storage, findings: Findings): Promise<Inspected> {
  const { readDescriptorFile } = await import("../../formats/vmdk/open.js");
  const { extents, parentName } = await readDescriptorFile(storage);
  const references = extents.flatMap(({ fileName }) =>
    fileName === undefined ? [] : [reportReference("extent file", fileName, undefined, findings)],
  );
  if (parentName !== undefined) references.push(reportReference("parent", parentName, "vmdk", findings));
  const virtualSize = extents.reduce((sum, { length }) => sum + length, 0);
  return { virtualSize, references, resources: { ...NO_RESOURCES, whenExpanded: virtualSize } };
}
