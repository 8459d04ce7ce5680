import type { Storage } from "../../storage/storage.js";

interface Mark {
  readonly what: string;
  /** Byte offset; below 0 from the end of the file. */
  readonly at: number;
  readonly bytes: readonly number[];
}

const ascii = (text: string): readonly number[] => Array.from(text, (character) => character.charCodeAt(0));

/** What other programs recognise a file by. The marks of image formats are those of other formats than zcow opens. */
const MARKS: readonly Mark[] = [
  { what: "MBR boot sector", at: 510, bytes: [0x55, 0xaa] },
  { what: "GPT partition table", at: 512, bytes: ascii("EFI PART") },
  { what: "ext file system", at: 1080, bytes: [0x53, 0xef] },
  { what: "XFS file system", at: 0, bytes: ascii("XFSB") },
  { what: "btrfs file system", at: 65_600, bytes: ascii("_BHRfS_M") },
  { what: "ISO 9660 file system", at: 32_769, bytes: ascii("CD001") },
  { what: "LUKS container", at: 0, bytes: [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe] },
  { what: "QED image", at: 0, bytes: [0x51, 0x45, 0x44, 0] },
  { what: "Parallels image", at: 0, bytes: ascii("WithoutFreeSpace") },
  { what: "Parallels image", at: 0, bytes: ascii("WithouFreSpacExt") },
  { what: "VPC footer", at: -512, bytes: ascii("conectix") },
  { what: "gzip archive", at: 0, bytes: [0x1f, 0x8b] },
  { what: "xz archive", at: 0, bytes: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0] },
  { what: "zstd archive", at: 0, bytes: [0x28, 0xb5, 0x2f, 0xfd] },
  { what: "ZIP archive", at: 0, bytes: [0x50, 0x4b, 3, 4] },
  { what: "ELF program", at: 0, bytes: [0x7f, 0x45, 0x4c, 0x46] },
];

/** What the file looks like to programs that go by content, each once. */
export async function marksOf(storage: Storage): Promise<string[]> {
  const found = new Set<string>();
  for (const { what, at, bytes } of MARKS) {
    const start = at < 0 ? storage.size() + at : at;
    if (start < 0 || start + bytes.length > storage.size()) continue;
    const there = new Uint8Array(bytes.length);
    await storage.read(start, there);
    if (bytes.every((byte, index) => there[index] === byte)) found.add(what);
  }
  return [...found];
}
