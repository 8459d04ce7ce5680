import type { ZonedExtension } from "./zoned-extension.js";

/** Feature words. Bit n of the word is bit n of the bigint, so unknown high bits survive. */
export interface Qcow2Features {
  readonly incompatible: bigint;
  readonly compatible: bigint;
  readonly autoclear: bigint;
}

/** A header extension whose meaning is not interpreted here; kept verbatim and in order when the header is rewritten. */
export interface RawExtension {
  /** u32 magic. */
  readonly type: number;
  /** Data without padding. */
  readonly data: Uint8Array;
}

/** One entry of the feature name table. */
export interface FeatureName {
  readonly type: "incompatible" | "compatible" | "autoclear" | number;
  readonly bit: number;
  readonly name: string;
}

/** Where the bitmaps extension says the bitmap directory is. Offsets and lengths in bytes. */
export interface BitmapDirectory {
  readonly count: number;
  readonly offset: number;
  readonly length: number;
}

/** Where the LUKS header lies. Offsets and lengths in bytes. */
export interface CryptHeader {
  readonly offset: number;
  readonly length: number;
}

/** A decoded, validated header: cluster 0 as far as it is in use. Offsets and sizes in bytes unless named. */
export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly backingFileName: string | undefined;
  readonly backingFormat: string | undefined;
  readonly clusterBits: number;
  /** Virtual size. */
  readonly size: number;
  /** 0 none, 1 AES, 2 LUKS. */
  readonly cryptMethod: number;
  /** L1 entries. */
  readonly l1Size: number;
  readonly l1TableOffset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly snapshotCount: number;
  readonly snapshotsOffset: number;
  readonly features: Qcow2Features;
  readonly refcountOrder: number;
  /** 72 for version 2. */
  readonly headerLength: number;
  /** 0 zlib (deflate), 1 zstd. */
  readonly compressionType: number;
  /** Header bytes after compression_type (from byte 105), padding included, kept verbatim. */
  readonly unknownBytes: Uint8Array;
  readonly featureNames: readonly FeatureName[];
  /** Name in the external data file extension. */
  readonly dataFileName: string | undefined;
  /** Present when the extension is there and its autoclear bit says that it is valid. */
  readonly bitmaps: BitmapDirectory | undefined;
  readonly cryptHeader: CryptHeader | undefined;
  /** All extensions in file order, known ones included: the source for rewriting. */
  readonly extensions: readonly RawExtension[];
  /** The zoned extension, decoded by layout, when there is one and `zoned` is not 0. */
  readonly zoned: ZonedExtension | undefined;
}

/** A header whose zoned extension, if any, is still among `extensions`: telling layouts apart needs the file. */
export type UnresolvedHeader = Omit<Qcow2Header, "zoned">;
