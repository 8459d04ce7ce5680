import { connect } from "node:net";
import { ERROR_CODES, type ErrorCode } from "../../base/error-codes.js";
import { ZcowError } from "../../base/errors.js";
import { readLines } from "./line-channel.js";

/** Longest reply that is taken, bytes. */
const LONGEST_REPLY = 64 * 1024 * 1024;
/** Milliseconds to wait for a reply. */
const REPLY_TIMEOUT = 30_000;

/**
 * Sends one request to the server behind the control socket at `path`; resolves to the result.
 *
 * Fails with `CONTROL_UNREACHABLE`, `CONTROL_PROTOCOL`, and the code that the server gives for its refusal.
 */
export function controlRequest(path: string, request: object): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    const fail = (error: ZcowError): void => {
      socket.destroy();
      reject(error);
    };
    const garbled = (why: string): void =>
      fail(new ZcowError("CONTROL_PROTOCOL", `the server at ${path} ${why}`, { data: { path } }));
    socket.setTimeout(REPLY_TIMEOUT, () => garbled(`has not answered for ${REPLY_TIMEOUT} ms`));
    socket.on("error", (error) =>
      fail(new ZcowError("CONTROL_UNREACHABLE", `no server answers at ${path}: ${error.message}`, { data: { path } })),
    );
    socket.on("close", () => garbled("closed the connection without an answer"));
    readLines(
      socket,
      LONGEST_REPLY,
      (line) => {
        try {
          resolve(resultOf(line, path));
        } catch (error) {
          reject(error);
        }
        socket.destroy();
      },
      () => garbled("sent a reply that is too long"),
    );
    socket.write(`${JSON.stringify(request)}\n`);
  });
}

function resultOf(line: string, path: string): unknown {
  let reply: unknown;
  try {
    reply = JSON.parse(line);
  } catch {
    reply = undefined;
  }
  if (typeof reply === "object" && reply !== null) {
    if ("result" in reply) return reply.result;
    if ("error" in reply && isRemoteError(reply.error)) throw new ZcowError(reply.error.code, reply.error.message);
  }
  throw new ZcowError("CONTROL_PROTOCOL", `the server at ${path} sent a reply that is none`, { data: { path } });
}

function isRemoteError(error: unknown): error is { code: ErrorCode; message: string } {
  if (typeof error !== "object" || error === null || !("code" in error) || !("message" in error)) return false;
  return typeof error.code === "string" && Object.hasOwn(ERROR_CODES, error.code) && typeof error.message === "string";
}
