// The table of live values: rows are made once, cells change in place.

import { element } from "/static/parts.js";
import { clock, raw, status, value } from "/static/words.js";

const MOST_ROWS = 400;
const REFRESH_MS = 150;  // faster nobody reads
const DAY_US = 864e8;

export class Table {
  constructor(body, more, filter, choose, now) {
    this.body = body; this.more = more; this.filter = filter; this.choose = choose; this.now = now;
    this.tags = new Map(); this.rows = new Map(); this.dirty = new Set(); this.chosen = "";
    filter.addEventListener("input", () => this.rebuild());
    body.addEventListener("click", (event) => this.pick(event.target.closest("tr")));
  }

  state(devices) {
    this.tags.clear();
    for (const device of devices) for (const row of device.tags) {
      this.tags.set(key(device.id, row.tag), { ...row, device: device.id });
    }
    this.rebuild();
  }

  // What is stamped more than a day ahead is newest until something else comes: a device's clock was wrong.
  samples(device, rows) {
    const size = this.tags.size, horizon = this.now() + DAY_US;
    for (const row of rows) {
      const tag = this.tag(device, row.tag);
      if (row.ts < tag.ts && tag.ts <= horizon) continue;
      tag.ts = row.ts; tag.value = row.value; tag.status = row.status;
    }
    if (this.tags.size === size) this.refresh(); else this.rebuild();
  }

  units(device, rows) {
    const size = this.tags.size;
    for (const row of rows) this.tag(device, row.tag).unit = row.unit;
    if (this.tags.size === size) this.refresh(); else this.rebuild();
  }

  tag(device, name) {
    const at = key(device, name);
    if (!this.tags.has(at)) this.tags.set(at, { device, tag: name, unit: "" });
    this.dirty.add(at);
    return this.tags.get(at);
  }

  devices(found) {
    const there = new Set(found.map((device) => device.id)), { size } = this.tags;
    for (const [at, tag] of this.tags) if (!there.has(tag.device)) this.tags.delete(at);
    if (this.tags.size !== size) this.rebuild();
  }

  get picked() { return this.tags.get(this.chosen); }

  rebuild() {
    const wanted = this.filter.value.toLowerCase();
    const found = [...this.tags].filter(([, tag]) => `${tag.device} ${tag.tag}`.toLowerCase().includes(wanted));
    this.rows.clear(); this.dirty.clear();
    this.body.replaceChildren(...found.slice(0, MOST_ROWS).map(([at, tag]) => this.row(at, tag)));
    const hidden = found.length - Math.min(found.length, MOST_ROWS);
    this.more.textContent = hidden ? `… and ${hidden} more: narrow them down with the filter.`
      : found.length ? "" : this.tags.size ? "No tag matches the filter." : "No values yet.";
  }

  row(at, tag) {
    const cells = ["", "", "number", "", "", "time"].map((className) => element("td", { className }));
    cells[0].textContent = tag.device;
    cells[1].append(element("button", { type: "button", textContent: tag.tag }));
    cells[1].dataset.device = tag.device;  // where there is no room for a column
    const row = element("tr", {}, ...cells);
    row.dataset.at = at;
    this.mark(row);
    this.rows.set(at, cells);
    this.write(cells, tag);
    return row;
  }

  mark(row) {
    row.className = row.dataset.at === this.chosen ? "chosen" : "";
    row.setAttribute("aria-current", String(row.dataset.at === this.chosen));
  }

  write(cells, tag) {
    cells[2].textContent = value(tag); cells[3].textContent = tag.unit ?? "";
    if (tag.ts === undefined) return;
    cells[2].title = raw(tag);
    const { kind, word, text } = status(tag.status);
    cells[2].className = kind === "good" ? "number" : `number ${kind}`;  // a phone has no status column
    cells[2].dataset.status = kind === "good" ? "" : word;
    cells[4].textContent = text; cells[4].className = kind;
    cells[5].textContent = clock(tag.ts);
  }

  refresh() {
    if (this.waiting) return;
    this.waiting = true;
    setTimeout(() => requestAnimationFrame(() => this.update()), REFRESH_MS);
  }

  update() {
    this.waiting = false;
    const changed = [];
    for (const at of this.dirty) {
      const cells = this.rows.get(at);
      if (!cells) continue;
      const before = cells[2].textContent;
      this.write(cells, this.tags.get(at));
      if (before !== cells[2].textContent) changed.push(cells[2]);
    }
    this.dirty.clear();
    for (const cell of changed) cell.classList.remove("fresh");
    void this.body.offsetWidth;  // one layout for all, so that each animation starts anew
    for (const cell of changed) cell.classList.add("fresh");
  }

  pick(row) {
    if (!row) return;
    this.chosen = row.dataset.at;
    for (const other of this.body.children) this.mark(other);
    this.choose();
  }

  // Choose what is worth a plot first of what is shown: a number, else any.
  pickFirst() {
    const rows = [...this.body.children];
    this.pick(rows.find((row) => typeof this.tags.get(row.dataset.at).value === "number") ?? rows[0]);
  }
}

function key(device, tag) { return JSON.stringify([device, tag]); }
