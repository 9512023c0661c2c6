// The gateway's side: requests with errors as sentences, and the stream with its reconnection.

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new Refused(0, "The gateway does not answer.");
  }
  if (answer.status === 204) return null;
  const text = await answer.text();
  let document;
  try { document = parse(text); } catch { document = {}; }
  if (!answer.ok) throw new Refused(answer.status, document.error?.message ?? `Status ${answer.status}.`);
  return document;
}

// Integers beyond 2**53 would lose digits as numbers: they are kept as their text where the browser tells it.
export function parse(text) {
  if (!/\d{17}/.test(text)) return JSON.parse(text);
  return JSON.parse(text, (_key, value, context) =>
    Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? context.source : value);
}

export class Stream {
  constructor(take, tell) { this.take = take; this.tell = tell; this.wait = 500; this.open(); }

  open() {
    const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/stream`;
    this.socket = new WebSocket(address);
    this.socket.onmessage = (event) => { this.wait = 500; this.take(parse(event.data)); };
    this.socket.onopen = () => this.tell("live");
    this.socket.onclose = (event) => {
      if (this.stopped) return;
      if (event.code === 4401) { this.tell("logged out"); return; }
      this.tell("offline");
      setTimeout(() => !this.stopped && this.open(), this.wait);
      this.wait = Math.min(this.wait * 2, 10000);
    };
  }

  stop() { this.stopped = true; this.socket.close(); }
}
