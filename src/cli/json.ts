/** JSON as the stock tools print it: four spaces, and nothing outside ASCII. */
export function jsonText(value: unknown): string {
  // The stock tools put the end of an empty list on a line of its own.
  const text = JSON.stringify(value, null, 4).replace(/^( *)(".*": )\[\](,?)$/gm, "$1$2[\n$1]$3");
  return `${text.replace(/[\u007f-\uffff]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0").toUpperCase()}`)}\n`;
}
