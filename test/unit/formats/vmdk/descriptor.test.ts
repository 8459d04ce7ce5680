import { describe, expect, it } from "vitest";
import { MiB } from "../../../../src/base/units.js";
import { parseDescriptor } from "../../../../src/formats/vmdk/descriptor.js";

describe("the descriptor of a VMDK", () => {
  it("gives fields with and without quotes, and spaces around them", () => {
    const text =
      '# Disk DescriptorFile\n CID = 0000abcd \nparentCID=ffffffff\ncreateType = "vmfs"\nparentFileNameHint="a b "\nRW 8 ZERO';
    expect(parseDescriptor(text, "disk.vmdk")).toMatchObject({
      contentId: 0xabcd,
      parentContentId: 0xffff_ffff,
      createType: "vmfs",
      parentName: "a b ",
      extents: [{ type: "ZERO", length: 4096 }],
    });
  });

  it("takes a line with quotes in the middle for no field", () => {
    expect(() => parseDescriptor('createType="a"b"', "disk.vmdk")).toThrowError(/createType/);
  });

  it.each([
    ["a field of spaces", `x=${" ".repeat(MiB)}y"z`],
    ["a name of a million letters", "a".repeat(MiB)],
    ["an extent of spaces", `RW 8 ZERO "${" ".repeat(MiB)}`],
    ["an extent that ends in spaces", `RW 8 FLAT "x"${" ".repeat(MiB)}-`],
  ])("is read in linear time with %s", (_what, line) => {
    const read = (): unknown => parseDescriptor(`createType="vmfs"\n${line}`, "disk.vmdk");
    if (line.startsWith("RW")) expect(read).toThrowError(/is no extent/);
    else expect(read()).toMatchObject({ createType: "vmfs" });
  });
});
