import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";

/** Small disks on which tables grow, zones fill and clusters are shared by requests within a few hundred requests. */

const KIB = 1024;

export interface CrashGeometry {
  readonly name: string;
  readonly options: CreateQcow2Options;
  /** Bytes at the start of the disk that are written, and durable, before the workload begins. */
  readonly prefill?: number;
  /** The workload stays above this byte. */
  readonly from?: number;
  /** Few tables in memory, so that they are written back and loaded again. */
  readonly cacheBytes?: number;
  /** Zones keep their clusters when they are reset. */
  readonly keepZoneSpace?: boolean;
  /** Some writes are compressed. */
  readonly compressed?: boolean;
  /** Parts of the disk are filled past the device. */
  readonly filled?: boolean;
}

export const PLAIN_GEOMETRIES: readonly CrashGeometry[] = [
  { name: "512-byte clusters", options: { size: 128 * KIB, clusterSize: 512 } },
  { name: "512-byte clusters, tiny cache", options: { size: 128 * KIB, clusterSize: 512 }, cacheBytes: 4 * KIB },
  { name: "64-bit refcounts", options: { size: 96 * KIB, clusterSize: 512, refcountBits: 64 } },
  {
    name: "refcounts that outgrow their table",
    // One table of 64 blocks of 64 counts covers 2 MiB of the file.
    options: { size: 2176 * KIB, clusterSize: 512, refcountBits: 64 },
    prefill: 1974 * KIB,
    from: 1950 * KIB,
  },
  { name: "1-bit refcounts", options: { size: 256 * KIB, clusterSize: 4 * KIB, refcountBits: 1 } },
  { name: "version 2", options: { size: 128 * KIB, clusterSize: 512, compat: "0.10" } },
  { name: "lazy refcounts", options: { size: 128 * KIB, clusterSize: 512, lazyRefcounts: true } },
  { name: "64 KiB clusters", options: { size: 1024 * KIB, clusterSize: 64 * KIB } },
  { name: "preallocated tables", options: { size: 256 * KIB, clusterSize: 4 * KIB, preallocation: "metadata" } },
];

/** Others write to the file meanwhile. The disk ends with a whole cluster, or inside one. */
export const FILLED_GEOMETRIES: readonly CrashGeometry[] = [
  ...PLAIN_GEOMETRIES,
  { name: "a size that ends inside a cluster", options: { size: 130.5 * KIB, clusterSize: 4 * KIB } },
  {
    name: "8-bit refcounts, tiny cache",
    options: { size: 512 * KIB, clusterSize: KIB, refcountBits: 8 },
    cacheBytes: 4 * KIB,
  },
].map((geometry) => ({ ...geometry, name: `filled, ${geometry.name}`, filled: true }));

/** Subclusters of 512 bytes and more, of every state. */
export const EXTENDED_GEOMETRIES: readonly CrashGeometry[] = (
  [
    { name: "16 KiB clusters", options: { size: 256 * KIB, clusterSize: 16 * KIB } },
    { name: "64 KiB clusters, 1-bit refcounts", options: { size: 300 * KIB, clusterSize: 64 * KIB, refcountBits: 1 } },
    { name: "lazy refcounts", options: { size: 256 * KIB, clusterSize: 32 * KIB, lazyRefcounts: true } },
    { name: "preallocated tables", options: { size: 384 * KIB, clusterSize: 64 * KIB, preallocation: "metadata" } },
    { name: "compressed", options: { size: 256 * KIB, clusterSize: 16 * KIB }, compressed: true },
  ] satisfies CrashGeometry[]
).map((geometry) => ({
  ...geometry,
  name: `extended L2, ${geometry.name}`,
  options: { ...geometry.options, extendedL2: true },
}));

const hostManaged = (size: number, more: CreateQcow2Options["zone"] = {}): CreateQcow2Options["zone"] => ({
  mode: "host-managed",
  size,
  ...more,
});

export const ZONED_GEOMETRIES: readonly CrashGeometry[] = [
  {
    name: "zones smaller than they look, one conventional",
    options: {
      size: 128 * KIB,
      clusterSize: 512,
      zone: hostManaged(16 * KIB, { capacity: 8 * KIB, conventionalZones: 1 }),
    },
  },
  {
    name: "a short last zone, limits, 1-bit refcounts",
    options: {
      size: 264 * KIB,
      clusterSize: 512,
      refcountBits: 1,
      zone: hostManaged(64 * KIB, { maxActiveZones: 3, maxOpenZones: 2 }),
    },
  },
  {
    name: "lazy refcounts, two conventional zones",
    options: {
      size: 293 * KIB,
      clusterSize: 4 * KIB,
      lazyRefcounts: true,
      zone: hostManaged(32 * KIB, { conventionalZones: 2 }),
    },
  },
  {
    name: "64 KiB clusters, a capacity that ends inside one",
    options: { size: 1024 * KIB, clusterSize: 64 * KIB, zone: hostManaged(128 * KIB, { capacity: 98 * KIB }) },
  },
  {
    name: "zones of two sectors",
    options: { size: 256 * KIB, clusterSize: 4 * KIB, zone: hostManaged(32 * KIB, { capacity: KIB }) },
  },
  {
    name: "extended L2, a capacity that ends inside a subcluster",
    options: {
      size: 1024 * KIB,
      clusterSize: 64 * KIB,
      extendedL2: true,
      zone: hostManaged(128 * KIB, { capacity: 98.5 * KIB, conventionalZones: 1, maxActiveZones: 3 }),
    },
  },
  {
    name: "zones wider than a table, tiny cache",
    options: { size: 512 * KIB, clusterSize: 512, zone: hostManaged(128 * KIB, { maxActiveZones: 2 }) },
    cacheBytes: 4 * KIB,
  },
  {
    name: "zones that keep their space, one conventional",
    options: { size: 128 * KIB, clusterSize: 512, zone: hostManaged(16 * KIB, { conventionalZones: 1 }) },
    keepZoneSpace: true,
  },
  {
    name: "zones that keep their space, a capacity that ends inside a cluster",
    options: { size: 256 * KIB, clusterSize: 4 * KIB, zone: hostManaged(32 * KIB, { capacity: 22 * KIB }) },
    keepZoneSpace: true,
  },
  {
    name: "extended L2, zones that keep their space",
    options: { size: 1024 * KIB, clusterSize: 64 * KIB, extendedL2: true, zone: hostManaged(128 * KIB) },
    keepZoneSpace: true,
  },
];

/** Layouts of published revisions, which are kept as they are when written. */
export const OLD_LAYOUT_GEOMETRIES: readonly CrashGeometry[] = (["append-limit", "v8", "v5", "v3"] as const).map(
  (layout) => ({
    name: `layout ${layout}`,
    options: {
      size: 120 * KIB,
      clusterSize: 512,
      zone: hostManaged(16 * KIB, {
        layout,
        capacity: 12 * KIB,
        conventionalZones: 1,
        maxActiveZones: 4,
        maxAppendBytes: 4 * KIB,
      }),
    },
  }),
);

/** Compressed clusters: several in one host cluster, counts that soon hold no more, data that crosses into the next cluster. */
export const COMPRESSED_GEOMETRIES: readonly CrashGeometry[] = (
  [
    { name: "512-byte clusters", options: { size: 96 * KIB, clusterSize: 512 } },
    { name: "4 KiB clusters", options: { size: 512 * KIB, clusterSize: 4 * KIB } },
    {
      name: "2-bit refcounts, tiny cache",
      options: { size: 64 * KIB, clusterSize: 1024, refcountBits: 2 },
      cacheBytes: 4 * KIB,
    },
    { name: "1-bit refcounts", options: { size: 256 * KIB, clusterSize: 4 * KIB, refcountBits: 1 } },
    { name: "version 2, 64 KiB clusters", options: { size: 1025 * KIB, clusterSize: 64 * KIB, compat: "0.10" } },
    { name: "lazy refcounts", options: { size: 256 * KIB, clusterSize: 4 * KIB, lazyRefcounts: true } },
    {
      name: "zones, one conventional",
      options: {
        size: 256 * KIB,
        clusterSize: 4 * KIB,
        zone: hostManaged(32 * KIB, { capacity: 26 * KIB, conventionalZones: 1 }),
      },
    },
    {
      name: "zones, 8-bit refcounts, limits",
      options: {
        size: 264 * KIB,
        clusterSize: 512,
        refcountBits: 8,
        zone: hostManaged(64 * KIB, { maxActiveZones: 3 }),
      },
    },
  ] satisfies CrashGeometry[]
).map((geometry) => ({ ...geometry, name: `compressed, ${geometry.name}`, compressed: true }));

/** Opens the encrypted images of the crash tests. */
export const CRASH_PASSPHRASE = "power cut";
const encrypt = { format: "aes", passphrase: CRASH_PASSPHRASE } as const;
const luks = { format: "luks", passphrase: CRASH_PASSPHRASE, iterTime: 1 } as const;

/** Guest data encrypted by sectors: requests of any alignment rewrite sectors, and what surrounds them is never noise. */
export const ENCRYPTED_GEOMETRIES: readonly CrashGeometry[] = [
  { name: "encrypted, 512-byte clusters", options: { size: 96 * KIB, clusterSize: 512, encrypt } },
  { name: "encrypted, 64 KiB clusters", options: { size: 1024 * KIB, clusterSize: 64 * KIB, encrypt } },
  {
    name: "encrypted, zones, one conventional",
    options: {
      size: 256 * KIB,
      clusterSize: 4 * KIB,
      encrypt,
      zone: hostManaged(32 * KIB, { capacity: 26 * KIB, conventionalZones: 1 }),
    },
  },
  { name: "LUKS, 4 KiB clusters", options: { size: 128 * KIB, clusterSize: 4 * KIB, encrypt: luks } },
  {
    name: "LUKS, subclusters",
    options: { size: 256 * KIB, clusterSize: 16 * KIB, extendedL2: true, encrypt: luks },
  },
  {
    name: "LUKS, zones, one conventional",
    options: {
      size: 256 * KIB,
      clusterSize: 4 * KIB,
      encrypt: luks,
      zone: hostManaged(32 * KIB, { capacity: 26 * KIB, conventionalZones: 1 }),
    },
  },
];

export const ALL_GEOMETRIES: readonly CrashGeometry[] = [
  ...PLAIN_GEOMETRIES,
  ...EXTENDED_GEOMETRIES,
  ...FILLED_GEOMETRIES,
  ...ZONED_GEOMETRIES,
  ...OLD_LAYOUT_GEOMETRIES,
  ...COMPRESSED_GEOMETRIES,
  ...ENCRYPTED_GEOMETRIES,
];
