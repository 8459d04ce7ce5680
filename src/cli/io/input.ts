import { createInterface } from "node:readline";

const PROMPT = "qemu-io> ";

/**
 * Lines of standard input. There is a prompt before each, whether or not a person is there: scripts that drive
 * the stock tool expect it. In a pipe it goes through `show`; on a terminal the line editor draws it.
 */
export async function* inputLines(show: (prompt: string) => void): AsyncGenerator<string> {
  const interactive = process.stdin.isTTY;
  const input = createInterface({
    input: process.stdin,
    ...(interactive ? { output: process.stdout } : {}),
    prompt: PROMPT,
  });
  const ask = (): void => (interactive ? input.prompt() : show(PROMPT));
  ask();
  try {
    for await (const line of input) {
      yield line;
      ask();
    }
  } finally {
    input.close();
  }
}
