import { ZcowError } from "../../base/errors.js";
import { SECTOR_SIZE } from "../../base/units.js";

/** What the text of a VMDK (descriptor version 1 to 3) says. */
export interface VmdkDescriptor {
  readonly contentId: number;
  /** 0xffffffff: no parent. */
  readonly parentContentId: number;
  readonly createType: string;
  /** Path of the parent, when there is one. */
  readonly parentName: string | undefined;
  readonly extents: readonly VmdkExtentLine[];
}

/** One line of the extent description. */
export interface VmdkExtentLine {
  readonly access: "RW" | "RDONLY" | "NOACCESS";
  /** Bytes of the disk that the extent holds. */
  readonly length: number;
  /** SPARSE, FLAT, ZERO, VMFS, ... */
  readonly type: string;
  readonly fileName: string | undefined;
  /** Byte offset in the file, for flat extents. */
  readonly fileOffset: number;
  /** As it stands in the descriptor, for messages. */
  readonly text: string;
}

/** A disk of 64 TiB in files of 2 GiB has 32,768; nobody keeps that many files open. */
const MAX_EXTENTS = 1024;
export const NO_PARENT = 0xffff_ffff;

/** Parses the text; `image` is the name for messages. Fails with `FORMAT_FIELD`. */
export function parseDescriptor(text: string, image: string): VmdkDescriptor {
  const fields = new Map<string, string>();
  const extents: VmdkExtentLine[] = [];
  for (const line of text.split(/\r?\n/)) {
    const field = parseField(line);
    if (field !== undefined) fields.set(field.name, field.value);
    else if (/^\s*(RW|RDONLY|NOACCESS)\s/.test(line)) extents.push(parseExtent(line.trim(), image));
    if (extents.length > MAX_EXTENTS) {
      throw invalid(image, "extents", extents.length, `more than ${MAX_EXTENTS} extents`);
    }
  }
  const createType = fields.get("createtype");
  if (createType === undefined)
    throw invalid(image, "createType", "", "it is missing", "invalid VMDK image descriptor");
  return {
    createType,
    contentId: hexadecimal(fields.get("cid")) ?? NO_PARENT,
    parentContentId: hexadecimal(fields.get("parentcid")) ?? NO_PARENT,
    parentName: fields.get("parentfilenamehint"),
    extents,
  };
}

/** `name = "value"`, with or without the quotes. A pattern for all of it would take quadratic time on a line of spaces. */
function parseField(line: string): { readonly name: string; readonly value: string } | undefined {
  const equals = line.indexOf("=");
  const name = line.slice(0, Math.max(0, equals)).trim();
  if (!/^[A-Za-z.0-9]+$/.test(name)) return undefined;
  const text = line.slice(equals + 1).trim();
  const start = text.startsWith('"') ? 1 : 0;
  const end = text.length > start && text.endsWith('"') ? text.length - 1 : text.length;
  const value = text.slice(start, end);
  return value.includes('"') ? undefined : { name: name.toLowerCase(), value };
}

function hexadecimal(text: string | undefined): number | undefined {
  return text !== undefined && /^[0-9a-f]{1,8}$/i.test(text) ? Number.parseInt(text, 16) : undefined;
}

const EXTENT = /^(RW|RDONLY|NOACCESS)\s+(\d{1,16})\s+([A-Z0-9]+)(?:\s+"([^"]*)"(?:\s+(\d{1,16}))?(?:\s+[^\s-].*)?)?$/;

function parseExtent(line: string, image: string): VmdkExtentLine {
  const match = EXTENT.exec(line);
  if (match === null) throw invalid(image, "extent", line, `'${line}' is no extent`, `Invalid extent line: ${line}`);
  const [, access, sectors, type, fileName, start] = match;
  const length = Number(sectors) * SECTOR_SIZE;
  const fileOffset = Number(start ?? "0") * SECTOR_SIZE;
  if (!Number.isSafeInteger(length) || !Number.isSafeInteger(fileOffset + length) || length === 0) {
    throw invalid(image, "extent", line, `'${line}' has no size that a disk can have`, `Invalid extent line: ${line}`);
  }
  return { access: access as VmdkExtentLine["access"], length, type: type as string, fileName, fileOffset, text: line };
}

function invalid(image: string, field: string, value: string | number, problem: string, stockText?: string): ZcowError {
  const data = { path: image, structure: "VMDK descriptor", field, value };
  return new ZcowError("FORMAT_FIELD", `${image}: VMDK descriptor, ${field}: ${problem}`, {
    data,
    ...(stockText === undefined ? {} : { stockText }),
  });
}
