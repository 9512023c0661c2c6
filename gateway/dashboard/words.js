// How values, times, sizes and states are written.

// Meters count far: of a large number all digits before the point are said, and two behind it.
export function number(value) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (Number.isSafeInteger(value)) return value.toLocaleString();
  if (size < 1e-4 || size >= 1e15) return value.toExponential(4);
  const digits = Math.max(7, Math.min(15, Math.ceil(Math.log10(size)) + 2));
  return value.toLocaleString(undefined, { maximumSignificantDigits: digits });
}

export function value(row) {
  if (!row || row.ts === undefined) return "–";
  const shown = row.value;
  if (typeof shown === "number") return number(shown);
  if (shown === null) return "null";
  const text = typeof shown === "object" ? JSON.stringify(shown) : String(shown);
  return text.length > 120 ? `${text.slice(0, 120)}… (${text.length} characters)` : text;
}

// As the API gives it, for who needs every digit.
export function raw(row) {
  const text = typeof row.value === "string" ? row.value : JSON.stringify(row.value) ?? "";
  return text.slice(0, 2000);
}

// The number that a plot shows of a sample, or null; the history leaves out what is Bad, too.
export function plotted(row) {
  if (row.status >>> 31) return null;
  if (typeof row.value === "number") return row.value;
  if (typeof row.value === "boolean") return row.value ? 1 : 0;
  return null;
}

export function status(code) {
  const kind = ["good", "warn", "bad", "bad"][(code >>> 30) & 3];
  const word = { good: "Good", warn: "Uncertain", bad: "Bad" }[kind];
  return { kind, word, text: code === 0 ? word : `${word} 0x${code.toString(16).toUpperCase().padStart(8, "0")}` };
}

export function clock(us) {
  const date = new Date(us / 1000);
  const time = date.toLocaleTimeString(undefined, { hourCycle: "h23" });
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString()} ${time}`;
}

// The browser's time zone, which all times are shown in; the gateway's may be another.
export function zone() {
  const parts = new Intl.DateTimeFormat(undefined, { timeZoneName: "short" }).formatToParts();
  return parts.find((part) => part.type === "timeZoneName").value;
}

export function span(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export function size(bytes) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 1000 && at < units.length - 1) { bytes /= 1000; at += 1; }
  return `${at ? bytes.toFixed(1) : bytes} ${units[at]}`;
}

export function stateKind(state) {
  if (state === "running") return "good";
  if (state === "failed" || state === "stopped") return "bad";
  return "warn";
}
