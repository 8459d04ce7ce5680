/** Certificates by gnutls' certtool, in directories whose files are named as QEMU names them. */
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runTool } from "./stock-tools.js";

type Validity = "now" | "past" | "future";

export interface CertificateWish {
  readonly commonName: string;
  readonly organization?: string;
  /** The name of the host that a server's certificate is for. */
  readonly dnsName?: string;
  readonly valid?: Validity;
}

export interface CertificateDirectory {
  readonly server?: CertificateWish;
  readonly client?: CertificateWish;
}

const VALIDITY: Readonly<Record<Validity, string>> = {
  // A guest's clock may be behind ours.
  now: 'activation_date = "2020-01-01 00:00:00 UTC"\nexpiration_date = "2080-01-01 00:00:00 UTC"',
  past: 'activation_date = "2020-01-01 00:00:00 UTC"\nexpiration_date = "2020-02-01 00:00:00 UTC"',
  future: 'activation_date = "2080-01-01 00:00:00 UTC"\nexpiration_date = "2080-02-01 00:00:00 UTC"',
};

export class TestAuthority {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** Makes the authority's own key and certificate in a new `folder`. */
  static async create(folder: string, valid: Validity = "now"): Promise<TestAuthority> {
    mkdirSync(folder, { recursive: true });
    const key = await makeKey(join(folder, "ca-key.pem"));
    const template = join(folder, "ca.info");
    writeFileSync(template, `cn = test authority\nca\ncert_signing_key\n${VALIDITY[valid]}\n`);
    const certificate = join(folder, "ca-cert.pem");
    await certtool("--generate-self-signed", "--load-privkey", key, "--template", template, "--outfile", certificate);
    return new TestAuthority(folder);
  }

  /** A directory with the authority's certificate, and the key and certificate of each end that is named. */
  async directory(path: string, ends: CertificateDirectory): Promise<string> {
    mkdirSync(path, { recursive: true });
    cpSync(join(this.#folder, "ca-cert.pem"), join(path, "ca-cert.pem"));
    for (const end of ["server", "client"] as const) {
      const wish = ends[end];
      if (wish !== undefined) await this.#sign(path, end, wish);
    }
    return path;
  }

  async #sign(path: string, end: "server" | "client", wish: CertificateWish): Promise<void> {
    const key = await makeKey(join(path, `${end}-key.pem`));
    const template = join(path, `${end}.info`);
    const lines = [
      `cn = ${wish.commonName}`,
      ...(wish.organization === undefined ? [] : [`organization = ${wish.organization}`]),
      ...(wish.dnsName === undefined ? [] : [`dns_name = ${wish.dnsName}`]),
      `tls_www_${end}`,
      "signing_key",
      VALIDITY[wish.valid ?? "now"],
    ];
    writeFileSync(template, `${lines.join("\n")}\n`);
    const ca = (name: string) => join(this.#folder, name);
    const signer = ["--load-ca-certificate", ca("ca-cert.pem"), "--load-ca-privkey", ca("ca-key.pem")];
    const subject = ["--load-privkey", key, "--template", template, "--outfile", join(path, `${end}-cert.pem`)];
    await certtool("--generate-certificate", ...signer, ...subject);
  }
}

async function makeKey(path: string): Promise<string> {
  await certtool("--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1", "--outfile", path);
  return path;
}

async function certtool(...args: string[]): Promise<void> {
  const { code, stderr } = await runTool("certtool", args);
  if (code !== 0) throw new Error(`certtool ${args.join(" ")}: ${stderr}`);
}

/** Keys agreed on beforehand, one for each name, in the file `keys.psk` of the new directory `path`. */
export async function makeKeys(path: string, names: readonly string[]): Promise<string> {
  mkdirSync(path, { recursive: true });
  for (const name of names) {
    const { code, stderr } = await runTool("psktool", ["-u", name, "-p", join(path, "keys.psk")]);
    if (code !== 0) throw new Error(`psktool: ${stderr}`);
  }
  return path;
}
