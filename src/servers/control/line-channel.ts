import type { Socket } from "node:net";

/** Longest line that is taken from a peer, bytes. */
export const LONGEST_LINE = 64 * 1024;

/**
 * Cuts what a socket delivers into lines. `tooLong` is called once, and nothing after it, when a line is above `limit`.
 */
export function readLines(socket: Socket, limit: number, line: (text: string) => void, tooLong: () => void): void {
  let rest: Buffer = Buffer.alloc(0);
  const take = (chunk: Buffer): void => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      const text = rest.toString("utf8", 0, end);
      rest = rest.subarray(end + 1);
      if (text.trim() !== "") line(text);
    }
    if (rest.length <= limit) return;
    socket.off("data", take);
    tooLong();
  };
  socket.on("data", take);
}
