// Numbers in words, and words in numbers. Lengths are metres; "inf" is infinity in JSON.

const UNITS = { m: 1, cm: 1e-2, mm: 1e-3, "µm": 1e-6, um: 1e-6, nm: 1e-9 };

/** A number of the JSON: infinity travels as "inf". */
export const numberOf = (value) => (value === "inf" ? Infinity : value);

/** A number for the JSON. */
export const plain = (value) => (value === Infinity ? "inf" : value);

function unitFor(metres) {
  const size = Math.abs(metres);
  if (size >= 1) return ["m", 1];
  if (size >= 1e-3) return ["mm", 1e3];
  return ["µm", 1e6];
}

function digits(value, significant) {
  if (value === 0) return "0";
  const whole = Math.floor(Math.log10(Math.abs(value))) + 1;
  return value.toFixed(Math.min(6, Math.max(0, significant - whole)));
}

/** A length with its unit, such as "0.561 m" or "37 µm". */
export function length(metres, significant = 3) {
  if (metres === null || metres === undefined || Number.isNaN(metres)) return "unknown";
  if (!Number.isFinite(metres)) return "∞";
  const [unit, per] = unitFor(metres);
  return `${digits(metres * per, significant)} ${unit}`;
}

/** A depth in the unit of its layer: "m", or "" for relative depth. */
export function depth(value, unit, significant = 3) {
  if (value === null || value === undefined) return "unknown";
  return unit === "m" ? length(value, significant) : digits(value, significant);
}

/** A value with its bounds: "561 ± 9 mm", or with both sides where they differ. */
export function withBounds(value, low, high, unit) {
  if (value === null || value === undefined) return "unknown";
  if (!Number.isFinite(value)) return "∞";
  const [name, per] = unit === "m" ? unitFor(value) : ["", 1];
  const tail = name && ` ${name}`;
  if (low === null || high === null || low === undefined || high === undefined) {
    return digits(value * per, 3) + tail;
  }
  const down = (value - low) * per;
  const up = (high - value) * per;
  const wider = Math.max(...[down, up].filter(Number.isFinite));
  const places = wider > 0 ? Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(wider)))) : 3;
  const said = (number) => (Number.isFinite(number) ? number.toFixed(places) : "∞");
  const isEven = Math.abs(up - down) <= wider / 4;
  const bounds = isEven ? `± ${said((up + down) / 2)}` : `−${said(down)} +${said(up)}`;
  return `${said(value * per)} ${bounds}${tail}`;
}

/** A point in one unit: "−1.8, 0.3, 168.9 mm". */
export function place(metres) {
  const [unit, per] = unitFor(Math.max(...metres.map(Math.abs)));
  const places = unit === "m" ? 3 : 1;
  return `${metres.map((value) => (value * per).toFixed(places).replace("-", "−")).join(", ")} ${unit}`;
}

/**
 * Metres of a text such as "0.37", "37 cm", "12.5mm" or "inf"; a bare number is in `unit`.
 * @returns {number|null} null for an empty text
 * @throws {Error} in a sentence
 */
export function lengthOf(text, unit = "m") {
  const words = text.trim().replace(",", ".");
  if (!words) return null;
  if (/^(inf|infinity|∞)$/i.test(words)) return Infinity;
  const [, number, name] = /^([+-]?[\d.]+(?:e[+-]?\d+)?)\s*([a-zµ]*)$/i.exec(words) ?? [];
  const per = UNITS[(name || unit).toLowerCase()];
  const value = Number(number);
  if (!per || number === undefined || Number.isNaN(value)) {
    throw new Error(`"${text}" is not a length. Write for example 0.37, 37 cm or inf.`);
  }
  return value * per;
}

/** A text with a capital. */
export const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

/** A sentence with a capital, unless it begins with the name of a file or stack. */
export const sentence = (text) => (/^[a-z]+ /.test(text) ? capital(text) : text);

/** "3 frames", "1 frame". */
export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** Seconds in words. */
export function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 1) return "less than a second";
  if (value < 90) return `${Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

/** Bytes in words. */
export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let number = value;
  while (number >= 1000 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${number >= 100 || unit === 0 ? Math.round(number) : number.toFixed(1)} ${units[unit]}`;
}

/** About `count` round numbers from `low` to `high`. */
export function roundTicks(low, high, count = 5) {
  if (!(high > low)) return [low];
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= raw);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-6; tick += step) {
    ticks.push(Number(tick.toPrecision(12)));
  }
  return ticks;
}
