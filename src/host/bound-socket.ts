import { readFileSync, readlinkSync } from "node:fs";

/** Lines of `/proc/net/unix`: address, references, protocol, flags, type, state, inode, and where the socket is bound. */
const BOUND = /^(?:\S+ +){6}(\d+) (.+)$/;

/**
 * The path at which the Unix socket behind a descriptor of this process was bound. Undefined when it has none (those with an
 * abstract name have not), is no Unix socket, or the system cannot tell.
 */
export function boundSocketPath(descriptor: number): string | undefined {
  try {
    const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${descriptor}`))?.[1];
    if (inode === undefined) return undefined;
    for (const line of readFileSync("/proc/net/unix", "utf8").split("\n")) {
      const [, itsInode, path] = BOUND.exec(line) ?? [];
      if (itsInode === inode) return path?.startsWith("/") === true ? path : undefined;
    }
  } catch {
    // Not Linux, or /proc is not to be had.
  }
  return undefined;
}
