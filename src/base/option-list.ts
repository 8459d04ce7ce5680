/**
 * Lists of options as the stock tools write them: `name=value,name=value`. A comma in a value is written twice, a name
 * alone means `on`, and a name alone behind "no" means `off`. `undefined` for a list that is empty, starts with a comma
 * or ends with a single one.
 */
export function splitOptionList(text: string): [name: string, value: string][] | undefined {
  // A zero byte cannot be part of an argument, so it can stand for a doubled comma.
  const pieces = text.replaceAll(",,", "\0").split(",");
  if (text.startsWith(",") || pieces.at(-1) === "") return undefined;
  return pieces.map((piece) => {
    const whole = piece.replaceAll("\0", ",");
    const equals = whole.indexOf("=");
    if (equals >= 0) return [whole.slice(0, equals), whole.slice(equals + 1)];
    return whole.startsWith("no") ? [whole.slice(2), "off"] : [whole, "on"];
  });
}
