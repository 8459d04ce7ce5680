import type { PassphraseSource } from "../../block/passphrase.js";
import { PREALLOCATIONS } from "./create-layout.js";
import { MAX_CLUSTER_BITS, MIN_CLUSTER_BITS } from "./limits.js";
import { ZONED_LAYOUTS } from "./zoned-extension.js";

/**
 * Every option of qcow2 creation, once. The TypeScript types, the parser of `-o` lists, the validation of values, the
 * `-o help` text, the JSON Schema and the documentation are all made from this table.
 */
export interface OptionSpec {
  /** As written after `-o`. */
  readonly name: string;
  /** Path in {@link CreateQcow2Options}. */
  readonly property: string;
  readonly type: "size" | "number" | "switch" | "choice" | "secret" | "text";
  /** Description in `-o help`; for options of the stock tool, its own words. */
  readonly help: string;
  /** For the documentation: unit, range, what it counts. */
  readonly doc: string;
  /** For the documentation. */
  readonly defaultText: string;
  /** Allowed values of a choice. */
  readonly choices?: readonly string[];
  /** Other spellings of choices. */
  readonly choiceAliases?: Readonly<Record<string, string>>;
  /** What the stock tool calls the option when it refuses a choice. */
  readonly stockParameter?: string;
  /** Other names of the option. `unit`: bytes in one unit of a number given under that name. */
  readonly aliases?: readonly { readonly name: string; readonly unit?: number }[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly powerOfTwo?: boolean;
}

const LARGEST_COUNT = 0xffff_ffff;

export const CREATE_OPTIONS = [
  {
    name: "backing_file",
    property: "backingFile",
    type: "text",
    help: "File name of a base image",
    doc: "The image that shows where this one has nothing: a path, relative to this image's folder, or a `json:{...}` description. The size is taken from it unless given; a zoned one passes on its zones.",
    defaultText: "none",
  },
  {
    name: "backing_fmt",
    property: "backingFormat",
    type: "text",
    help: "Image format of the base image",
    doc: "Format of the backing file. It must be given: formats are not guessed.",
    defaultText: "required with `backing_file`",
  },
  {
    name: "cluster_size",
    property: "clusterSize",
    type: "size",
    help: "qcow2 cluster size",
    doc: "Bytes in a cluster, the unit of allocation: a power of two from 512 to 2 MiB.",
    defaultText: "64 KiB",
    minimum: 2 ** MIN_CLUSTER_BITS,
    maximum: 2 ** MAX_CLUSTER_BITS,
    powerOfTwo: true,
  },
  {
    name: "compat",
    property: "compat",
    type: "choice",
    help: "Compatibility level (v2 [0.10] or v3 [1.1])",
    doc: "Version of the format: `0.10` (or `v2`) is version 2, `1.1` (or `v3`) is version 3.",
    defaultText: "`1.1`",
    choices: ["0.10", "1.1"],
    choiceAliases: { v2: "0.10", v3: "1.1" },
    stockParameter: "version",
  },
  {
    name: "compression_type",
    property: "compressionType",
    type: "choice",
    help: "Compression method used for image cluster compression",
    doc: "How clusters are compressed that are written compressed: `zlib` (deflate), or `zstd`, which is faster both ways. Version 3 for `zstd`.",
    defaultText: "`zlib`",
    choices: ["zlib", "zstd"],
    stockParameter: "compression-type",
  },
  {
    name: "data_file",
    property: "dataFile",
    type: "text",
    help: "File name of an external data file",
    doc: "The file that takes the data in place of the image: a path, relative to the working directory of whoever opens the image. It is made, or replaced. Version 3 only.",
    defaultText: "none",
  },
  {
    name: "data_file_raw",
    property: "dataFileRaw",
    type: "switch",
    help: "The external data file must stay valid as a raw image",
    doc: "The data file is always a raw disk with the same contents. Everything is mapped at once.",
    defaultText: "`off`",
  },
  {
    name: "encrypt.cipher-alg",
    property: "encrypt.cipherAlg",
    type: "choice",
    help: "Name of encryption cipher algorithm",
    doc: "Cipher of LUKS, with the bits of its key. `aes-192` goes with mode `xts` only.",
    defaultText: "`aes-256`",
    choices: ["aes-128", "aes-192", "aes-256"],
    stockParameter: "cipher-alg",
  },
  {
    name: "encrypt.cipher-mode",
    property: "encrypt.cipherMode",
    type: "choice",
    help: "Name of encryption cipher mode",
    doc: "Mode of the cipher.",
    defaultText: "`xts`",
    choices: ["cbc", "xts"],
    stockParameter: "cipher-mode",
  },
  {
    name: "encrypt.format",
    property: "encrypt.format",
    type: "choice",
    help: "Encrypt the image, format choices: 'aes', 'luks'",
    doc: "How the disk is encrypted: `luks`, or the old and weak `aes`, for programs that need it.",
    defaultText: "not encrypted",
    choices: ["aes", "luks"],
    stockParameter: "format",
  },
  {
    name: "encrypt.hash-alg",
    property: "encrypt.hashAlg",
    type: "choice",
    help: "Name of encryption hash algorithm",
    doc: "Hash that keys are derived with from passphrases.",
    defaultText: "`sha256`",
    choices: ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160"],
    stockParameter: "hash-alg",
  },
  {
    name: "encrypt.iter-time",
    property: "encrypt.iterTime",
    type: "number",
    help: "Time to spend in PBKDF in milliseconds",
    doc: "Milliseconds that trying a passphrase takes on this machine: what somebody who guesses has to pay for each guess.",
    defaultText: "2000",
    minimum: 0,
    maximum: 600_000,
  },
  {
    name: "encrypt.ivgen-alg",
    property: "encrypt.ivgenAlg",
    type: "choice",
    help: "Name of IV generator algorithm",
    doc: "How the IV of a sector follows from its number.",
    defaultText: "`plain64`",
    choices: ["plain", "plain64", "essiv"],
    stockParameter: "ivgen-alg",
  },
  {
    name: "encrypt.ivgen-hash-alg",
    property: "encrypt.ivgenHashAlg",
    type: "choice",
    help: "Name of IV generator hash algorithm",
    doc: "Hash of the IV generator `essiv`: one of 16, 24 or 32 bytes.",
    defaultText: "`sha256` for `essiv`",
    choices: ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160"],
    stockParameter: "ivgen-hash-alg",
  },
  {
    name: "encrypt.key-secret",
    property: "encrypt.passphrase",
    type: "secret",
    help: "ID of secret providing qcow AES key or LUKS passphrase",
    doc: "The passphrase. On the command line the name of a secret that `--object secret,id=NAME,...` gives.",
    defaultText: "required for encryption",
  },
  {
    name: "encryption",
    property: "encryption",
    type: "switch",
    help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
    doc: "The same as `encrypt.format=aes`.",
    defaultText: "`off`",
  },
  {
    name: "extended_l2",
    property: "extendedL2",
    type: "switch",
    help: "Extended L2 tables",
    doc: "Clusters are cut into 32 subclusters, so that a small write copies little. Version 3, clusters from 16 KiB.",
    defaultText: "`off`",
  },
  {
    name: "keep_data_file",
    property: "keepDataFile",
    type: "switch",
    help: "Keep the contents of an external data file that exists",
    doc: "The data file is there already and keeps its contents; with `data_file_raw` they are the contents of the disk.",
    defaultText: "`off`",
  },
  {
    name: "lazy_refcounts",
    property: "lazyRefcounts",
    type: "switch",
    help: "Postpone refcount updates",
    doc: "Refcounts may be written late; after a crash they are rebuilt. Version 3 only.",
    defaultText: "`off`",
  },
  {
    name: "preallocation",
    property: "preallocation",
    type: "choice",
    help: "Preallocation mode (allowed values: off, metadata, falloc, full)",
    doc: "What is allocated at once: nothing, the tables, or the data as well (space reserved, or zeros written).",
    defaultText: "`off`",
    choices: PREALLOCATIONS,
    stockParameter: "preallocation",
  },
  {
    name: "refcount_bits",
    property: "refcountBits",
    type: "number",
    help: "Width of a reference count entry in bits",
    doc: "Bits in a reference count: a power of two from 1 to 64; version 2 has 16.",
    defaultText: "16",
    minimum: 1,
    maximum: 64,
    powerOfTwo: true,
  },
  {
    name: "size",
    property: "size",
    type: "size",
    help: "Virtual disk size",
    doc: "Bytes on the virtual disk, rounded up to a multiple of 512.",
    defaultText: "required",
    minimum: 0,
    maximum: Number.MAX_SAFE_INTEGER,
  },
  {
    name: "zone.capacity",
    property: "zone.capacity",
    type: "size",
    help: "Writable bytes of each zone",
    doc: "Bytes of each zone that can be written, from its start: a multiple of 512, at most `zone.size`.",
    defaultText: "`zone.size`",
    aliases: [{ name: "zone_capacity" }],
  },
  {
    name: "zone.conventional_zones",
    property: "zone.conventionalZones",
    type: "number",
    help: "Number of conventional zones at the start of the disk",
    doc: "How many zones, from the first, take random writes; fewer than there are zones.",
    defaultText: "0",
    aliases: [{ name: "nr_conv_zones" }, { name: "conventional_zones" }],
    minimum: 0,
    maximum: LARGEST_COUNT,
  },
  {
    name: "zone.layout",
    property: "zone.layout",
    type: "choice",
    help: "Layout of the zoned extension (allowed values: current, append-limit, v8, v5, v3, seed)",
    doc: "Which published layout of the zoned extension is written; the older ones are for programs that need them.",
    defaultText: "`current`",
    choices: ZONED_LAYOUTS,
  },
  {
    name: "zone.max_active_zones",
    property: "zone.maxActiveZones",
    type: "number",
    help: "Most zones that may be open or closed at a time, 0 = no limit",
    doc: "Largest number of active zones (open or closed); 0 = no limit.",
    defaultText: "0",
    aliases: [{ name: "max_active_zones" }],
    minimum: 0,
    maximum: LARGEST_COUNT,
  },
  {
    name: "zone.max_append_bytes",
    property: "zone.maxAppendBytes",
    type: "size",
    help: "Bytes of the largest zone append",
    doc: "Bytes of the largest append: a multiple of 512, at most `zone.capacity`; 0 = the capacity. Kept by layouts that store it. `max_append_sectors` counts sectors of 512 bytes.",
    defaultText: "`zone.capacity`",
    aliases: [{ name: "max_append_bytes" }, { name: "max_append_sectors", unit: 512 }],
  },
  {
    name: "zone.max_open_zones",
    property: "zone.maxOpenZones",
    type: "number",
    help: "Most zones that may be open at a time, 0 = no limit",
    doc: "Largest number of open zones; 0 = no limit.",
    defaultText: "`zone.max_active_zones`",
    aliases: [{ name: "max_open_zones" }],
    minimum: 0,
    maximum: LARGEST_COUNT,
  },
  {
    name: "zone.mode",
    property: "zone.mode",
    type: "choice",
    help: "Zone model of the disk (allowed values: none, host-managed)",
    doc: "`host-managed` makes the disk a zoned block device.",
    defaultText: "`none`",
    choices: ["none", "host-managed"],
    choiceAliases: { "0": "none", "1": "host-managed" },
    aliases: [{ name: "zone_model" }],
  },
  {
    name: "zone.size",
    property: "zone.size",
    type: "size",
    help: "Bytes in each zone",
    doc: "Bytes in each zone: a power of two and a multiple of the cluster size. The last zone may be shorter.",
    defaultText: "256 MiB",
    aliases: [{ name: "zone_size" }],
  },
] as const satisfies readonly OptionSpec[];

type Spec = (typeof CREATE_OPTIONS)[number];

type ValueOf<S> = S extends { readonly type: "choice"; readonly choices: readonly (infer C)[] }
  ? C
  : S extends { readonly type: "switch" }
    ? boolean
    : S extends { readonly type: "secret" }
      ? PassphraseSource
      : S extends { readonly type: "text" }
        ? string
        : number;

type Group<Name extends string> = {
  readonly [S in Spec as S["property"] extends `${Name}.${infer P}` ? P : never]?: ValueOf<S> | undefined;
};

/** Zones of a new image, as in the table: sizes in bytes. */
export type CreateZoneOptions = Group<"zone">;

/** Encryption of a new image, as in the table. */
export type CreateEncryptOptions = Group<"encrypt">;

/** How a new qcow2 image is made, as in the table: sizes in bytes. */
export type CreateQcow2Options = {
  readonly [S in Spec as S["property"] extends `${string}.${string}` ? never : S["property"]]?: ValueOf<S> | undefined;
} & { readonly zone?: CreateZoneOptions | undefined; readonly encrypt?: CreateEncryptOptions | undefined };

/** The table without its literal types, for code that walks over it. */
export const OPTION_SPECS: readonly OptionSpec[] = CREATE_OPTIONS;

/** The value at `path` ("clusterSize", "zone.size") of an options object, whatever it is. */
export function optionValue(options: CreateQcow2Options, path: string): unknown {
  return path
    .split(".")
    .reduce<unknown>(
      (value, key) => (typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined),
      options,
    );
}

/** A value of any kind, as messages show it. */
export function describeValue(value: unknown): string {
  const isPlain = typeof value === "number" || typeof value === "boolean" || typeof value === "bigint";
  return typeof value === "string" || isPlain ? String(value) : typeof value;
}
