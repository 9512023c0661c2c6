// The gateway's side: requests with errors as sentences, and the stream with its reconnection.

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export async function ask(path, options = {}, limit_s = 10) {
  let answer, text;
  try {
    answer = await fetch(path, { credentials: "same-origin", signal: AbortSignal.timeout(limit_s * 1000), ...options });
    text = await answer.text();
  } catch {
    throw new Refused(0, "The gateway does not answer.");
  }
  if (answer.status === 204) return null;
  let document;
  try { document = parse(text); } catch { document = {}; }
  if (!answer.ok) throw new Refused(answer.status, document.error?.message ?? `Status ${answer.status}.`);
  return document;
}

// Integers beyond 2**53 would lose digits as numbers: they become texts. Texts are skipped, numbers taken whole.
export function parse(text) {
  if (!/9\d{15}|\d{17}/.test(text)) return JSON.parse(text);
  return JSON.parse(text.replace(/"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g, (part) =>
    /^-?\d{16,}$/.test(part) && !Number.isSafeInteger(Number(part)) ? `"${part}"` : part));
}

export class Stream {
  constructor(take, tell) { this.take = take; this.tell = tell; this.wait = 500; this.open(); }

  open() {
    this.timer = null;
    const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/stream`;
    const socket = this.socket = new WebSocket(address);
    socket.onmessage = (event) => {
      const message = parse(event.data);
      this.wait = 500;
      if (message.type === "state") this.tell("live");  // not when it opens: it may not be logged in any more
      this.take(message);
    };
    socket.onclose = (event) => {
      if (event.code === 4401) this.tell("logged out", event.reason); else this.lost();
    };
  }

  // A gateway without power or cable closes nothing, and pings are not told here: whoever asked in vain says so.
  lost() {
    if (this.timer) return;
    this.stop();
    this.tell("offline");
    this.timer = setTimeout(() => this.open(), this.wait);
    this.wait = Math.min(this.wait * 2, 10000);
  }

  stop() {
    clearTimeout(this.timer);
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
  }
}
