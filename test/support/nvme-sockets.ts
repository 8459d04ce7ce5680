import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { HostStream } from "./nvme-initiator.js";

/** The host's end of a TCP connection to a server on this machine. */
export function tcpStream(port: number): Promise<HostStream> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true }, () => resolve(streamOf(socket)));
    socket.once("error", reject);
  });
}

/** The same over TLS with a key agreed on beforehand. Fails when the handshake does. */
export function tlsStream(port: number, identity: string, psk: Uint8Array): Promise<HostStream> {
  return new Promise((resolve, reject) => {
    const socket = connectTls(
      {
        port,
        host: "127.0.0.1",
        minVersion: "TLSv1.3",
        ciphers: "TLS_AES_128_GCM_SHA256",
        checkServerIdentity: () => undefined,
        pskCallback: () => ({ identity, psk }),
      },
      () => resolve(streamOf(socket)),
    );
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("the server closed the connection during the handshake")));
  });
}

/** A bare connection, for those who do not keep to any protocol. */
export function rawSocket(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1" }, () => resolve(socket));
    socket.once("error", reject);
  });
}

/** Resolves when the other side has closed a bare connection. */
export function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.destroyed) return resolve();
    socket.on("error", () => undefined);
    socket.resume();
    socket.once("close", () => resolve());
  });
}

function streamOf(socket: Socket): HostStream {
  socket.on("error", () => undefined);
  return {
    write: (bytes) => void socket.write(bytes),
    onData: (listener) => void socket.on("data", listener),
    onClose: (listener) => void socket.on("close", () => listener()),
    close: () => void socket.destroy(),
  };
}
