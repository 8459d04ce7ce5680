/**
 * The GUIDs that VHDX uses (Microsoft VHDX format specification, MS-VHDX 2.2.3 and 2.2.4), as the hexadecimal digits of their bytes
 * in the file: the first three groups are stored little-endian.
 */
export const REGION_BAT = guidBytes("2dc27766-f623-4200-9d64-115e9bfd4a08");
export const REGION_METADATA = guidBytes("8b7ca206-4790-4b9a-b8fe-575f050f886e");

export const ITEM_FILE_PARAMETERS = guidBytes("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
export const ITEM_VIRTUAL_DISK_SIZE = guidBytes("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
export const ITEM_PAGE_83 = guidBytes("beca12ab-b2e6-4523-93ef-c309e000c746");
export const ITEM_LOGICAL_SECTOR_SIZE = guidBytes("8141bf1d-a96f-4709-ba47-f233a8faab5f");
export const ITEM_PHYSICAL_SECTOR_SIZE = guidBytes("cda348c7-445d-4471-9cc9-e9885251c556");

function guidBytes(text: string): string {
  const [a = "", b = "", c = "", d = "", e = ""] = text.split("-");
  return [a, b, c].map(reversed).join("") + d + e;
}

function reversed(group: string): string {
  return (group.match(/../g) ?? []).toReversed().join("");
}
