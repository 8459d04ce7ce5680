import { openSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { boundSocketPath } from "../../../src/host/bound-socket.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

/** Where Node keeps the descriptor of a server. */
const HANDLE = "_handle";

describe.skipIf(process.platform !== "linux")("the path of a socket that is handed over", () => {
  const inFolder = temporaryFolder();
  const servers: Server[] = [];
  afterEach(() => servers.splice(0).forEach((server) => server.close()));

  /** The descriptor of a server that listens. */
  async function descriptorOf(where: string | number): Promise<number> {
    const server = createServer();
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(where, resolve));
    return (server as unknown as { [HANDLE]: { fd: number } })[HANDLE].fd;
  }

  it("is found, with spaces in it", async () => {
    const path = inFolder("a socket  with spaces");
    expect(boundSocketPath(await descriptorOf(path))).toBe(path);
  });

  it("is not there for TCP, abstract names, files and nothing", async () => {
    expect(boundSocketPath(await descriptorOf(0))).toBeUndefined();
    expect(boundSocketPath(await descriptorOf(`\0zcow-test-${process.pid}`))).toBeUndefined();
    expect(boundSocketPath(openSync("/dev/null", "r"))).toBeUndefined();
    expect(boundSocketPath(1_000_000)).toBeUndefined();
  });
});
