import { describe, expect, test } from "vitest";
import { isZcowError, type Warning, type ZcowError } from "../../../../src/base/errors.js";
import { GiB, KiB, MiB } from "../../../../src/base/units.js";
import { createQcow2 } from "../../../../src/formats/qcow2/create.js";
import { CREATE_OPTIONS, type CreateQcow2Options } from "../../../../src/formats/qcow2/create-options.js";
import { parseCreateOptions } from "../../../../src/formats/qcow2/create-options-parse.js";
import { readHeader } from "../../../../src/formats/qcow2/header-read.js";
import type { ZonedExtension } from "../../../../src/formats/qcow2/zoned-extension.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";

function refusalOf(parse: () => unknown): ZcowError {
  try {
    parse();
  } catch (error) {
    if (isZcowError(error)) return error;
    throw error;
  }
  throw new Error("was not refused");
}

async function create(options: CreateQcow2Options): Promise<{ zoned: ZonedExtension; warnings: Warning[] }> {
  const storage = memoryStorage();
  const warnings: Warning[] = [];
  await createQcow2(storage, options, { onWarning: (warning) => warnings.push(warning) });
  const { zoned } = await readHeader(storage);
  if (zoned === undefined) throw new Error("the image is not zoned");
  return { zoned, warnings };
}

async function creationRefusal(options: CreateQcow2Options): Promise<ZcowError> {
  const storage = memoryStorage();
  const error: unknown = await createQcow2(storage, options).catch((reason: unknown) => reason);
  if (!isZcowError(error)) throw new Error(`was not refused: ${String(error)}`);
  expect(storage.size(), "bytes written before the refusal").toBe(0);
  return error;
}

const zoned = (zone: CreateQcow2Options["zone"], size = 768 * MiB): CreateQcow2Options => ({
  size,
  zone: { mode: "host-managed", ...zone },
});

describe("the option list", () => {
  test("the seed's command line parses as printed", () => {
    const lists = [
      "size=768M",
      "zone_size=64M",
      "zone_capacity=64M",
      "nr_conv_zones=0",
      "max_append_sectors=512",
      "max_open_zones=0",
      "max_active_zones=0",
      "zone_model=1",
    ];
    expect(parseCreateOptions(lists)).toEqual({
      size: 768 * MiB,
      zone: {
        mode: "host-managed",
        size: 64 * MiB,
        capacity: 64 * MiB,
        conventionalZones: 0,
        maxAppendBytes: 512 * 512,
        maxOpenZones: 0,
        maxActiveZones: 0,
      },
    });
  });

  test("every option is known by its own name and by each alias", () => {
    const sample = { size: "4k", number: "4", switch: "on", secret: "id", text: "a name" } as const;
    for (const spec of CREATE_OPTIONS) {
      const value = spec.type === "choice" ? spec.choices[0] : sample[spec.type];
      const aliases: readonly { name: string; unit?: number }[] = "aliases" in spec ? spec.aliases : [];
      for (const { name, unit } of [{ name: spec.name }, ...aliases]) {
        const text = `${name}=${unit === undefined ? value : "8"}`;
        const parsed = parseCreateOptions(text, (id) => id);
        expect(JSON.stringify(parsed), text).toContain(`"${spec.property.split(".").at(-1)}"`);
      }
    }
  });

  test("names and values are sizes, numbers, switches and choices", () => {
    expect(parseCreateOptions("cluster_size=0x1000,refcount_bits=0x10,compat=v2,lazy_refcounts=yes")).toEqual({
      clusterSize: 4096,
      refcountBits: 16,
      compat: "0.10",
      lazyRefcounts: true,
    });
    expect(parseCreateOptions("lazy_refcounts")).toEqual({ lazyRefcounts: true });
    expect(parseCreateOptions("nolazy_refcounts")).toEqual({ lazyRefcounts: false });
    expect(parseCreateOptions("size=1.5k")).toEqual({ size: 1536 });
  });

  test("of an option given twice the last one holds", () => {
    expect(parseCreateOptions("refcount_bits=16,refcount_bits=32")).toEqual({ refcountBits: 32 });
    expect(parseCreateOptions(["zone.size=1M", "zone_size=2M"])).toEqual({ zone: { size: 2 * MiB } });
  });

  test("the zone model is a word or the number it had", () => {
    expect(parseCreateOptions("zone.mode=host-managed")).toEqual({ zone: { mode: "host-managed" } });
    expect(parseCreateOptions("zone_model=1")).toEqual({ zone: { mode: "host-managed" } });
    expect(parseCreateOptions("zone_model=0")).toEqual({ zone: { mode: "none" } });
    expect(parseCreateOptions("zone_model=none")).toEqual({ zone: { mode: "none" } });
    const error = refusalOf(() => parseCreateOptions("zone_model=2"));
    expect(error.code).toBe("INVALID_ARGUMENT");
    expect(error.message).toBe("Option zone_model: '2' is not one of none, host-managed, 0, 1");
  });

  test.each([
    ["", "INVALID_ARGUMENT", "Invalid option list: "],
    [",cluster_size=4k", "INVALID_ARGUMENT", "Invalid option list: ,cluster_size=4k"],
    ["cluster_size=4k,", "INVALID_ARGUMENT", "Invalid option list: cluster_size=4k,"],
    ["foo=1", "UNKNOWN_OPTION", "Invalid parameter 'foo'"],
    ["__proto__=1", "UNKNOWN_OPTION", "Invalid parameter '__proto__'"],
    ["constructor=1", "UNKNOWN_OPTION", "Invalid parameter 'constructor'"],
    ["=4", "UNKNOWN_OPTION", "Invalid parameter ''"],
    ["compat=1.2", "INVALID_ARGUMENT", "Parameter 'version' does not accept value '1.2'"],
    ["compat=toString", "INVALID_ARGUMENT", "Parameter 'version' does not accept value 'toString'"],
    ["preallocation", "INVALID_ARGUMENT", "Parameter 'preallocation' does not accept value 'on'"],
    ["lazy_refcounts=ON", "INVALID_ARGUMENT", "Parameter 'lazy_refcounts' expects 'on' or 'off'"],
    ["refcount_bits=1.5", "INVALID_ARGUMENT", "Parameter 'refcount_bits' expects a number"],
    [
      "refcount_bits=99999999999999999999",
      "INVALID_ARGUMENT",
      "Value '99999999999999999999' is too large for parameter 'refcount_bits'",
    ],
    [
      "cluster_size=99999999999E",
      "INVALID_ARGUMENT",
      "Value '99999999999E' is out of range for parameter 'cluster_size'",
    ],
  ])("'%s' is refused with %s and the words of the stock tool", (list, code, stockText) => {
    const error = refusalOf(() => parseCreateOptions(list));
    expect(error.code).toBe(code);
    expect(error.stockText).toBe(stockText);
  });

  test("options of the stock tool that ask for nothing are taken", () => {
    expect(parseCreateOptions("data_file_raw=no")).toEqual({ dataFileRaw: false });
  });
});

describe("values out of range", () => {
  const cluster = "Cluster size must be a power of two between 512 and 2048k";
  const width = "Refcount width must be a power of two and may not exceed 64 bits";
  test.each<[CreateQcow2Options, string, string]>([
    [{ size: MiB, clusterSize: 300 }, "cluster_size", cluster],
    [{ size: MiB, clusterSize: 1000 }, "cluster_size", cluster],
    [{ size: MiB, clusterSize: 4 * MiB }, "cluster_size", cluster],
    [{ size: MiB, clusterSize: Number.NaN }, "cluster_size", cluster],
    [{ size: MiB, refcountBits: 3 }, "refcount_bits", width],
    [{ size: MiB, refcountBits: 128 }, "refcount_bits", width],
    [{ size: MiB, refcountBits: -1 }, "refcount_bits", width],
    [
      { size: MiB, compat: "0.10", refcountBits: 8 },
      "refcount_bits",
      "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)",
    ],
    [
      { size: MiB, compat: "0.10", lazyRefcounts: true },
      "lazy_refcounts",
      "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)",
    ],
    [{}, "size", "Image creation needs a size parameter"],
    [
      { size: 129 * GiB, clusterSize: 512 },
      "size",
      "The image size is too large for file format 'qcow2' (try using a larger cluster size)",
    ],
  ])("%j: the option %s is named", async (options, option, stockText) => {
    const error = await creationRefusal(options);
    expect(error.code).toBe("INVALID_ARGUMENT");
    expect(error.data.option).toBe(option);
    expect(error.message).toContain(`Option ${option}`);
    expect(error.stockText).toBe(stockText);
  });

  test("a value of the wrong type is refused, not used", async () => {
    for (const bad of [
      { size: "1M" },
      { size: MiB, lazyRefcounts: "on" },
      { size: MiB, compat: 3 },
      { size: MiB, zone: { mode: "host-managed", size: "64M" } },
    ]) {
      const error = await creationRefusal(bad as unknown as CreateQcow2Options);
      expect(error.code).toBe("INVALID_ARGUMENT");
    }
  });
});

describe("zones of a new image", () => {
  test("defaults: zones of 256 MiB, whole capacity, no limits", async () => {
    const { zoned: made, warnings } = await create(zoned({}, GiB));
    expect(made).toMatchObject({
      layout: "current",
      zoneCount: 4,
      zoneSize: 256 * MiB,
      zoneCapacity: 256 * MiB,
      conventionalZones: 0,
      maxActiveZones: 0,
      maxOpenZones: 0,
      tableOffset: 3 * 64 * KiB,
    });
    expect(warnings).toEqual([]);
  });

  test("max_open defaults to max_active when only that is given, and stands alone otherwise", async () => {
    const both = (zone: CreateQcow2Options["zone"]) => create(zoned({ size: 64 * MiB, ...zone }));
    expect((await both({ maxActiveZones: 5 })).zoned).toMatchObject({ maxActiveZones: 5, maxOpenZones: 5 });
    expect((await both({ maxOpenZones: 5 })).zoned).toMatchObject({ maxActiveZones: 0, maxOpenZones: 5 });
    expect((await both({ maxActiveZones: 7, maxOpenZones: 3 })).zoned).toMatchObject({
      maxActiveZones: 7,
      maxOpenZones: 3,
    });
  });

  test("limits that are too large are clamped with a warning, and stored clamped", async () => {
    const { zoned: made, warnings } = await create(
      zoned({ size: 64 * MiB, conventionalZones: 2, maxActiveZones: 99, maxOpenZones: 50 }),
    );
    expect(made).toMatchObject({ maxActiveZones: 10, maxOpenZones: 10 });
    expect(warnings.map(({ code }) => code)).toEqual(["ZONED_MAX_ACTIVE_CLAMPED", "ZONED_MAX_OPEN_CLAMPED"]);
  });

  test("an append limit is stored by layouts that have the field, in their unit", async () => {
    for (const layout of ["append-limit", "v8", "v5", "v3", "seed"] as const) {
      const given = await create(zoned({ size: 64 * MiB, layout, maxAppendBytes: 256 * KiB }));
      expect(given.zoned).toMatchObject({ layout, maxAppendBytes: 256 * KiB });
      expect((await create(zoned({ size: 64 * MiB, layout }))).zoned.maxAppendBytes, layout).toBe(64 * MiB);
    }
  });

  test("a layout without the field says that it drops the append limit", async () => {
    const { zoned: made, warnings } = await create(zoned({ size: 64 * MiB, maxAppendBytes: 256 * KiB }));
    expect(made.maxAppendBytes).toBeUndefined();
    expect(warnings.map(({ code }) => code)).toEqual(["ZONED_MAX_APPEND_NOT_STORED"]);
  });

  test.each<[CreateQcow2Options, string, string, string]>([
    [zoned({ size: 0 }), "ZONED_ZONE_SIZE", "zone.size", "zone_size 0"],
    [zoned({ size: 48 * MiB }), "ZONED_ZONE_SIZE_POWER", "zone.size", "zone_size 50331648"],
    [zoned({ size: 32 * KiB }), "ZONED_ZONE_SIZE_CLUSTER", "zone.size", "65536"],
    [zoned({ capacity: 0 }), "ZONED_CAPACITY", "zone.capacity", "zone_capacity 0"],
    [zoned({ size: MiB, capacity: 2 * MiB }), "ZONED_CAPACITY", "zone.capacity", "zone_size 1048576"],
    [
      zoned({ size: MiB, capacity: 1000 }),
      "ZONED_CAPACITY_ALIGNMENT",
      "zone.capacity",
      "1000 is not a multiple of 512",
    ],
    [zoned({ size: 64 * MiB, conventionalZones: 12 }), "ZONED_CONVENTIONAL", "zone.conventional_zones", "12"],
    [zoned({ size: 64 * MiB, maxAppendBytes: 1000 }), "ZONED_MAX_APPEND", "zone.max_append_bytes", "1000"],
    [
      zoned({ size: MiB, maxAppendBytes: 2 * MiB }),
      "ZONED_MAX_APPEND",
      "zone.max_append_bytes",
      "zone_capacity 1048576",
    ],
    [{ ...zoned({}), compat: "0.10" }, "ZONED_VERSION", "compat", "0.10"],
    [{ ...zoned({}), preallocation: "metadata" }, "INVALID_ARGUMENT", "preallocation", "metadata"],
    [{ size: MiB, zone: { size: MiB } }, "INVALID_ARGUMENT", "zone.size", "1048576"],
    [{ size: MiB, zone: { mode: "none", capacity: MiB } }, "INVALID_ARGUMENT", "zone.capacity", "1048576"],
  ])("%j is refused with %s", async (options, code, option, value) => {
    const error = await creationRefusal(options);
    expect(error.code).toBe(code);
    expect(error.data.option).toBe(option);
    expect(error.message).toContain(value);
    expect(error.data.limit).toBeDefined();
  });

  test("too many zones, or none, are refused", async () => {
    expect((await creationRefusal({ ...zoned({ size: 512 }, 2 ** 30), clusterSize: 512 })).code).toBe(
      "ZONED_TOO_MANY_ZONES",
    );
    expect((await creationRefusal(zoned({}, 0))).code).toBe("ZONED_ZONE_COUNT");
  });

  test("a zone too large for the 32-bit fields of an old layout is refused, naming layout and limit", async () => {
    const error = await creationRefusal(zoned({ size: 4 * GiB, layout: "v5" }, 16 * GiB));
    expect(error.code).toBe("ZONED_LAYOUT_FIELD");
    expect(error.message).toContain("layout v5");
    expect(error.data).toMatchObject({ value: 4 * GiB, limit: 2 ** 32 - 1 });
  });
});
