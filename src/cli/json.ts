/** JSON as the stock tools print it: four spaces, and nothing outside ASCII. */
export function jsonText(value: unknown): string {
  const text = JSON.stringify(value, null, 4);
  return `${text.replace(/[\u007f-\uffff]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0").toUpperCase()}`)}\n`;
}
