import * as fs from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

/** A C function; `async` calls it in the thread pool. */
export type ForeignFunction = ((...values: unknown[]) => number) & { async(...values: unknown[]): void };

export interface ForeignLibrary {
  func(name: string, result: string, parameters: readonly string[]): ForeignFunction;
}

/** What is used of koffi. */
export interface Koffi {
  /** By the name that the system's loader knows; null: this program. */
  load(name: string | null): ForeignLibrary;
  errno(): number;
  address(view: Uint8Array): bigint;
}

/** The major version whose binary offers the functions above by itself. */
const KNOWN_VERSION = /^3\./;

interface Binary {
  /** Below a folder of installed packages. */
  readonly path: string;
  /** Where a system has the loader of the other C library, for which there is another binary. */
  readonly muslLoader: string;
}

const BINARIES: Readonly<Record<string, Binary>> = {
  x64: { path: "@koromix/koffi-linux-x64/linux_x64/koffi.node", muslLoader: "/lib/ld-musl-x86_64.so.1" },
  arm64: { path: "@koromix/koffi-linux-arm64/linux_arm64/koffi.node", muslLoader: "/lib/ld-musl-aarch64.so.1" },
};

/**
 * Loads koffi, or throws. Most of the 5 ms that its package takes to load go into finding out which of its binaries
 * suits this system. Where that is plain, on Linux with glibc and packages in a flat folder, the binary is taken at
 * once; everywhere else the package decides. Both share one instance: Node.js knows a binary by its path.
 */
export function loadKoffi(): Koffi {
  const require = createRequire(import.meta.filename);
  return binaryAtOnce(require) ?? require("koffi");
}

function binaryAtOnce(require: NodeJS.Require): Koffi | undefined {
  const binary = BINARIES[process.arch];
  if (process.platform !== "linux" || binary === undefined || fs.existsSync(binary.muslLoader)) return undefined;
  const path = installedFile(binary.path);
  if (path === undefined) return undefined;
  try {
    const koffi: Koffi & { readonly version?: string } = require(path);
    return KNOWN_VERSION.test(koffi.version ?? "") ? koffi : undefined;
  } catch {
    return undefined;
  }
}

/** Where Node.js would find `path` in the packages that this program can use. */
function installedFile(path: string): string | undefined {
  let folder = import.meta.dirname;
  for (;;) {
    const file = join(folder, "node_modules", path);
    if (fs.existsSync(file)) return file;
    const above = dirname(folder);
    if (above === folder) return undefined;
    folder = above;
  }
}
