import { GUEST_KERNELS, type GuestKernel } from "./guest-files.js";

/** The kernels to test with: all, or those that ZCOW_GUEST_KERNELS names, separated by commas. */
export function chosenKernels(): readonly GuestKernel[] {
  const wish = process.env["ZCOW_GUEST_KERNELS"]?.split(",");
  if (wish === undefined) return GUEST_KERNELS;
  const unknown = wish.filter((name) => !GUEST_KERNELS.some((kernel) => kernel === name));
  if (unknown.length > 0)
    throw new Error(`unknown kernels ${unknown.join(", ")}: there are ${GUEST_KERNELS.join(", ")}`);
  return GUEST_KERNELS.filter((kernel) => wish.includes(kernel));
}

/** A number that an environment variable may set. */
export function chosenNumber(variable: string, otherwise: number): number {
  const text = process.env[variable];
  if (text === undefined) return otherwise;
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new Error(`${variable}=${text}: a number from 1 to 999999 is wanted`);
  return Number(text);
}
