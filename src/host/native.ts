import { getSystemErrorName } from "node:util";
import { type ForeignFunction, type Koffi, loadKoffi } from "./native-helper.js";

/*
 * What is called through the native helper (koffi, which calls C functions by name). Loading it costs
 * 2 to 5 ms, so it happens at the first call that needs it and never for a plain short read. The
 * structures and constants used here are those of 64-bit little-endian Linux; elsewhere, without
 * koffi, and with ZCOW_NO_NATIVE=1 in the environment `nativeCalls()` gives undefined.
 */

/** Linux errno numbers that decide what happens next (the same on every 64-bit architecture listed below). */
export const ERRNO = { EINTR: 4, EAGAIN: 11, EACCES: 13, EINVAL: 22, ENOSYS: 38, EOPNOTSUPP: 95 } as const;

/** Done when the call returned; the arguments of the callback are as Node.js has them. */
type AsyncDone = (error: unknown, result: number) => void;

/** Functions of the C library. All return -1 on failure; then `errno()` tells why, until the next call. */
export interface NativeCalls {
  pread(fd: number, into: Uint8Array, length: number, at: number): number;
  pwrite(fd: number, from: Uint8Array, length: number, at: number): number;
  preadv2(fd: number, iovec: Uint8Array, count: number, at: number, flags: number): number;
  lseek(fd: number, at: number, whence: number): number;
  fallocate(fd: number, mode: number, at: number, length: number): number;
  /** In the thread pool. Its errno is lost: ask again with `fallocate`. */
  fallocateInPool(fd: number, mode: number, at: number, length: number, done: AsyncDone): void;
  /** `lock` is a `struct flock`. */
  fcntl(fd: number, command: number, lock: Uint8Array): number;
  /** `context` receives 8 bytes. 0, or -1. */
  ioSetup(events: number, context: Uint8Array): number;
  /** `list` holds `count` addresses. The number of requests taken, or -1. */
  ioSubmit(context: number, count: number, list: Uint8Array): number;
  /** In the thread pool: waits for at least `least` completions and stores up to `most`. */
  ioGetEventsInPool(context: number, least: number, most: number, events: Uint8Array, done: AsyncDone): void;
  /** Flags as `recv(2)` and `send(2)` have them. */
  recv(fd: number, into: Uint8Array, length: number, flags: number): number;
  send(fd: number, from: Uint8Array, length: number, flags: number): number;
  readv(fd: number, iovec: Uint8Array, count: number): number;
  /** Lets others run who wait for this processor. */
  schedYield(): number;
  errno(): number;
  /** Address of the first byte of a view. Its buffer does not move while it is reachable and not detached. */
  address(view: Uint8Array): number;
}

/** Numbers of the system calls that the C library has no function for. */
interface SystemCalls {
  readonly ioSetup: number;
  readonly ioSubmit: number;
  readonly ioGetEvents: number;
}

const GENERIC_CALLS: SystemCalls = { ioSetup: 0, ioSubmit: 2, ioGetEvents: 4 };

/** The architectures whose structures are known here. */
const ARCHITECTURES: Readonly<Record<string, SystemCalls>> = {
  x64: { ioSetup: 206, ioSubmit: 209, ioGetEvents: 208 },
  arm64: GENERIC_CALLS,
  riscv64: GENERIC_CALLS,
  loong64: GENERIC_CALLS,
};

let calls: NativeCalls | undefined;
let asked = false;

/** The native calls, loading the helper at the first use; undefined where there is none. */
export function nativeCalls(): NativeCalls | undefined {
  if (!asked) {
    asked = true;
    calls = loadCalls();
  }
  return calls;
}

/** The native calls if something has loaded them already. */
export function loadedNativeCalls(): NativeCalls | undefined {
  return calls;
}

/** An error like those of `node:fs`, for a native call that failed with `errno`. */
export function systemError(errno: number, call: string): Error {
  const code = getSystemErrorName(-errno);
  return Object.assign(new Error(`${code}: ${call}`), { code, errno: -errno, syscall: call });
}

function loadCalls(): NativeCalls | undefined {
  const systemCalls = ARCHITECTURES[process.arch];
  if (process.platform !== "linux" || systemCalls === undefined) return undefined;
  if (process.env["ZCOW_NO_NATIVE"] === "1") return undefined;
  try {
    return bindCalls(loadKoffi(), systemCalls);
  } catch {
    // Not installed, or built for another system: everything works without it.
    return undefined;
  }
}

/** Declares a function at its first use: a declaration costs more than many calls. */
function lazily(bind: () => ForeignFunction): () => ForeignFunction {
  let bound: ForeignFunction | undefined;
  return () => {
    bound ??= bind();
    return bound;
  };
}

function bindCalls(koffi: Koffi, systemCalls: SystemCalls): NativeCalls {
  const libc = koffi.load(null);
  const transfer = ["int", "void *", "size_t", "int64_t"];
  const pread = lazily(() => libc.func("pread", "int64_t", transfer));
  const pwrite = lazily(() => libc.func("pwrite", "int64_t", transfer));
  const preadv2 = lazily(() => libc.func("preadv2", "int64_t", ["int", "void *", "int", "int64_t", "int"]));
  const lseek = lazily(() => libc.func("lseek", "int64_t", ["int", "int64_t", "int"]));
  const fallocate = lazily(() => libc.func("fallocate", "int", ["int", "int", "int64_t", "int64_t"]));
  const fcntl = lazily(() => libc.func("fcntl", "int", ["int", "int", "void *"]));
  const long = "int64_t";
  const ioSetup = lazily(() => libc.func("syscall", long, [long, long, "void *"]));
  const ioSubmit = lazily(() => libc.func("syscall", long, [long, long, long, "void *"]));
  const ioGetEvents = lazily(() => libc.func("syscall", long, [long, long, long, long, "void *", "void *"]));
  const socketTransfer = ["int", "void *", "size_t", "int"];
  const recv = lazily(() => libc.func("recv", "int64_t", socketTransfer));
  const send = lazily(() => libc.func("send", "int64_t", socketTransfer));
  const readv = lazily(() => libc.func("readv", "int64_t", ["int", "void *", "int"]));
  const schedYield = lazily(() => libc.func("sched_yield", "int", []));
  return {
    pread: (fd, into, length, at) => pread()(fd, into, length, at),
    pwrite: (fd, from, length, at) => pwrite()(fd, from, length, at),
    preadv2: (fd, iovec, count, at, flags) => preadv2()(fd, iovec, count, at, flags),
    lseek: (fd, at, whence) => lseek()(fd, at, whence),
    fallocate: (fd, mode, at, length) => fallocate()(fd, mode, at, length),
    fallocateInPool: (fd, mode, at, length, done) => fallocate().async(fd, mode, at, length, done),
    fcntl: (fd, command, lock) => fcntl()(fd, command, lock),
    ioSetup: (events, context) => ioSetup()(systemCalls.ioSetup, events, context),
    ioSubmit: (context, count, list) => ioSubmit()(systemCalls.ioSubmit, context, count, list),
    ioGetEventsInPool: (context, least, most, events, done) =>
      ioGetEvents().async(systemCalls.ioGetEvents, context, least, most, events, null, done),
    recv: (fd, into, length, flags) => recv()(fd, into, length, flags),
    send: (fd, from, length, flags) => send()(fd, from, length, flags),
    readv: (fd, iovec, count) => readv()(fd, iovec, count),
    schedYield: () => schedYield()(),
    errno: () => koffi.errno(),
    address: (view) => Number(koffi.address(view)),
  };
}
