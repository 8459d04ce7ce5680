import { describe, expect, it } from "vitest";
import { fixedPoint, formatSize, parseSize } from "../../../src/base/size-text.js";
import { GiB, KiB, MiB, TiB } from "../../../src/base/units.js";

describe("parseSize", () => {
  it.each([
    ["0", 0],
    ["512", 512],
    ["10b", 10],
    ["10B", 10],
    ["64k", 64 * KiB],
    ["64K", 64 * KiB],
    ["1M", MiB],
    ["1.5G", 1.5 * GiB],
    ["2t", 2 * TiB],
    ["1E", 2 ** 60],
    ["0.5k", 512],
    ["1.0005k", 1025],
    ["1.k", KiB],
    ["1.0", 1],
    ["010", 10],
    ["+5", 5],
    [" 5", 5],
    ["0x10", 16],
    ["0X1F", 31],
    ["18446744073709551615", 2 ** 64],
  ])("reads %j as %d bytes", (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each(["", "abc", "1.5", "1.1b", "1e3", ".5k", "1 k", "1kb", "1KiB", "5s", "-1", "0x", "0x1.8k", "inf", "nan"])(
    "does not read %j as a size",
    (text) => {
      expect(parseSize(text)).toBeUndefined();
    },
  );
});

describe("formatSize", () => {
  it.each([
    [0, "0 B"],
    [512, "512 B"],
    [1000, "0.977 KiB"],
    [1024, "1 KiB"],
    [1536, "1.5 KiB"],
    [100352, "98 KiB"],
    [197120, "192 KiB"],
    [1023 * KiB, "0.999 MiB"],
    [67108864, "64 MiB"],
    [1073741824000, "0.977 TiB"],
    [2 ** 60, "1 EiB"],
  ])("shows %d bytes as %s", (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });
});

describe("fixedPoint", () => {
  it.each([
    [2.0625, 3, "2.062"],
    [3.1875, 3, "3.188"],
    [0.125, 2, "0.12"],
    [62.4384765625, 3, "62.438"],
    [1.0005, 3, "1.000"],
    [7, 2, "7.00"],
  ])("prints %d with %d places as %s, as printf does", (value, places, text) => {
    expect(fixedPoint(value, places)).toBe(text);
  });
});
