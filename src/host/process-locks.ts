import * as fs from "node:fs";
import { type ImageUse, writeConflict } from "./image-lock.js";

/*
 * Image locks within this process, for hosts where those of the kernel cannot be taken. They keep a program from
 * opening one image twice and writing both, which loses data without a word; other processes do not see them.
 */

/** Who has a file open now. A file is known by device and inode, whatever name it was opened by. */
interface Users {
  writers: number;
  readers: number;
}

const usersOfFiles = new Map<string, Users>();

/**
 * Notes that the file behind `fd` is in use from now on; the result ends that, once. "inspect" looks and notes nothing,
 * "shared" does not even look. Throws `LOCKED` when another user of this process is in the way.
 */
export function lockInProcess(fd: number, path: string, use: ImageUse): () => void {
  if (use === "shared") return () => undefined;
  const { dev, ino } = fs.fstatSync(fd, { bigint: true });
  const file = `${dev}:${ino}`;
  const users = usersOfFiles.get(file) ?? { writers: 0, readers: 0 };
  if (users.writers > 0 || (use === "write" && users.readers > 0)) throw writeConflict(path, use !== "write");
  if (use === "inspect") return () => undefined;
  const role = use === "write" ? "writers" : "readers";
  users[role] += 1;
  usersOfFiles.set(file, users);
  return once(() => {
    users[role] -= 1;
    if (users.writers + users.readers === 0) usersOfFiles.delete(file);
  });
}

function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    action();
  };
}
