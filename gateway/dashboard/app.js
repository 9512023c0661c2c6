// The dashboard: log in, listen to the stream, show.

import { ask, Stream } from "/static/live.js";
import * as parts from "/static/parts.js";
import { Plot } from "/static/plot.js";
import { Table } from "/static/table.js";
import { plotted, status, value, zone } from "/static/words.js";

const get = (id) => document.getElementById(id);
const FEW = 2000;  // samples that a plot shows each
const RANGES = [["5 min", 300], ["1 h", 3600], ["6 h", 21600], ["24 h", 86400], ["7 d", 604800]];
const plot = new Plot(get("plot"), get("plot-empty"));
const table = new Table(get("values"), get("values-more"), get("filter"), choose, () => plot.now());
let stream = null, devices = [], seconds = 300, timers = [], loading = 0, loaded = 0, asking = false;

async function enter() {
  try {
    const { name, role } = await ask("/v1/session");
    show(true);
    get("facts").title = `logged in as ${name} (${role})`;
    tell("connecting");
    stream = new Stream(take, tell);
    timers = [setInterval(refresh, 5000), setInterval(() => plot.draw(), 500), setInterval(again, 15000)];
    timers.push(setInterval(() => ask("/v1/session").catch(() => {}), 3600000));  // lets a session that may only read go on
    await refresh();
  } catch (refused) {
    leave(refused.status === 401 ? "" : refused.message);
  }
}

function leave(message) {
  stream?.stop();
  timers.forEach(clearInterval);
  [stream, timers, table.chosen] = [null, [], ""];
  get("login-error").textContent = message;
  show(false);
}

function show(inside) {
  get("page").hidden = !inside;
  get("login").hidden = inside;
  if (!inside) get("token").focus();
}

get("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = get("login-button");
  if (button.disabled) return;
  button.disabled = true;
  try {
    await ask("/v1/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: get("token").value.trim() }),
    });
    get("token").value = "";
    await enter();
  } catch (refused) {
    get("login-error").textContent = refused.message;
  } finally {
    button.disabled = false;
  }
});

get("logout").addEventListener("click", async () => {
  try {
    await ask("/v1/session", { method: "DELETE" });
    leave("");
  } catch (refused) {  // 401: there is none, where reading is public
    leave(refused.status === 401 ? "" : `${refused.message} You may still be logged in.`);
  }
});

function tell(state, reason) {
  if (state === "logged out") { leave(`Please log in again: ${reason}.`); return; }
  get("link").textContent = state;
  get("link").className = `badge ${{ live: "good", offline: "bad" }[state] ?? ""}`;
  get("page").classList.toggle("offline", state === "offline");
  if (state === "offline") plot.held = null;
}

function take(message) {
  if (message.type === "state") {
    get("gateway-id").textContent = document.title = message.id;
    get("facts").textContent = `version ${message.version}`;
    align(message);
    parts.devices(get("devices"), devices = message.devices);
    table.state(message.devices);
  } else if (message.type === "devices") {
    parts.devices(get("devices"), devices = message.devices);
    table.devices(message.devices);
  } else if (message.type === "tags") {
    table.units(message.device, message.tags);
  } else if (message.type === "samples") {
    table.samples(message.device, message.samples);
    if (message.device === table.picked?.device) follow(message.samples);
  }
  if (!table.picked) table.pickFirst();
  reading();
}

// The clocks of both may be set while the page is open.
function align(state) {
  plot.ahead_us = state.now_us - Date.now() * 1000;
  return state;
}

function follow(rows) {
  for (const row of rows) {
    if (row.tag === table.picked.tag) plot.add(row.ts, plotted(row));
  }
}

// What the table says of the chosen tag.
function reading() {
  const tag = table.picked, there = tag?.ts !== undefined, { kind, word } = status(there ? tag.status : 0);
  get("plot-value").textContent = there ? `${value(tag)} ${tag.unit ?? ""}${kind === "good" ? "" : ` · ${word}`}` : "";
  get("plot-value").className = `reading ${kind}`;
  get("plot-note").hidden = typeof tag?.value !== "boolean";
  get("plot-note-more").hidden = plot.steps;
  const shown = there && holds(tag) ? plotted(tag) : null;
  plot.held = shown === null ? null : { ts: tag.ts, value: shown };
}

// Whether no news of a tag means that it is as it was: not while its device is away.
function holds(tag) {
  return onChange(tag) && ["running", "degraded"].includes(devices.find((each) => each.id === tag.device).state);
}

// Whether a value is so until the next: not of one that is pushed, nor of a radio sensor between two streams.
function onChange(tag) {
  const device = devices.find((each) => each.id === tag.device);
  return device !== undefined && !["push", "icotronic"].includes(device.kind);
}

function choose() {
  get("plot-title").textContent = `${table.picked.device} · ${table.picked.tag}`;
  reading();
  plot.clear(seconds);
  loadHistory();
}

function again() { if (loaded === loading) loadHistory(); }

async function loadHistory() {
  if (!table.picked) return;
  const { device, tag } = table.picked, each = onChange(table.picked), mine = ++loading;
  const width = Math.max(1, Math.ceil(seconds / 300)), to = Math.round(plot.now()), from = to - seconds * 1e6;
  const id = encodeURIComponent(device), window = `from=${from}&to=${to}`;
  const path = `/v1/devices/${id}/samples?tags=${encodeURIComponent(tag)}&${window}`;
  try {
    const [{ buckets }, { gaps }] = await Promise.all([
      ask(`${path}&bucket=${width}s`, {}, 60), ask(`/v1/gaps?device=${id}&${window}&limit=200`, {}, 60),
    ]);
    const few = each && buckets.reduce((count, bucket) => count + bucket.count, 0) <= FEW;
    const { samples, next } = few ? await ask(`${path}&limit=${FEW}`, {}, 60) : { next: "more" };
    if (mine !== loading) return;
    if (next) plot.buckets(buckets, width * 1e6, gaps);
    else plot.samples(samples.map((row) => ({ ts: row.ts, value: plotted(row) })), width * 1e6, gaps);
    reading();
  } catch (refused) {
    if (refused.status !== 404 && mine === loading) plot.failed(refused.message);
  } finally {
    if (mine === loading) loaded = mine;
  }
}

for (const [text, length] of RANGES) {
  const button = parts.element("button", { type: "button", textContent: text });
  button.setAttribute("aria-pressed", String(length === seconds));
  button.addEventListener("click", () => {
    seconds = length;
    for (const other of get("ranges").children) other.setAttribute("aria-pressed", String(other === button));
    plot.clear(seconds);
    loadHistory();
  });
  get("ranges").append(button);
}

async function refresh() {
  if (asking) return;
  asking = true;
  const asked = stream;
  try {
    const [state, uploads, gaps] = await Promise.all([ask("/v1/state").then(align), ask("/v1/uploads"), ask("/v1/gaps?limit=8")]);
    get("zone").textContent = `(${zone()})`;
    parts.notices(get("notices"), state);
    parts.store(get("store"), state);
    parts.uploads(get("uploads"), uploads.uploads);
    parts.gaps(get("gaps"), gaps.gaps);
  } catch (refused) {
    if (!asked || stream !== asked) return;
    if (refused.status === 401) leave("Please log in again.");
    if (refused.status === 0) stream.lost();
  } finally {
    asking = false;
  }
}

enter();
