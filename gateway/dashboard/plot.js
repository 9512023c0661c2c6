// One plot: the history as a band of buckets with a line, or where its samples are few as steps; then live samples;
// gaps shaded.

import { clock, number } from "/static/words.js";

const LEAST_LEFT = 58, RIGHT = 12, TOP = 10, BOTTOM = 24;

export class Plot {
  constructor(canvas, empty) {
    this.canvas = canvas; this.empty = empty; this.ahead_us = 0; this.held = null;
    this.clear(3600);
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointermove", (event) => { this.pointer = event.offsetX; this.draw(); });
    canvas.addEventListener("pointerleave", () => { this.pointer = null; this.draw(); });
  }

  // The gateway's time, which its samples are in: this browser's clock may be another.
  now() { return Date.now() * 1000 + this.ahead_us; }

  clear(seconds) {
    this.seconds = seconds; this.past = []; this.live = []; this.gaps = []; this.width = 0; this.pointer = null;
    this.steps = false; this.words = ""; this.end = 0;
    this.draw();
  }

  // Of what is told on change: all its samples (value null: Bad), each of which holds until the next.
  samples(samples, width, gaps) {
    this.steps = true;
    this.take(samples.map((s) => point(s.ts, s.value)), width, gaps, (samples.at(-1)?.ts ?? -1) + 1);
  }

  buckets(buckets, width, gaps) {
    this.steps = false;
    const past = buckets.map((b) => ({ ts: b.ts + width / 2, value: b.avg, min: b.min, max: b.max }));
    this.take(past, width, gaps, (buckets.at(-1)?.ts ?? -width) + width);
  }

  take(past, width, gaps, end) {
    this.past = past; this.width = width; this.gaps = gaps; this.end = end;
    this.words = "No numbers in this range.";
    this.live = this.live.filter((point) => point.ts >= this.end);
    this.draw();
  }

  failed(sentence) { this.words = sentence; this.draw(); }

  add(ts, value) {
    const last = this.live.at(-1);
    if (ts < this.end || ts < last?.ts) return;  // late samples come with the next history
    if (ts > this.now() + 864e8) return;  // a device's clock was wrong
    this.live.push(point(ts, value));
    if (this.live.length > 20000) this.live.splice(0, 10000);
  }

  draw() {
    const { canvas } = this;
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const to = this.now(), from = to - this.seconds * 1e6;
    const all = [...this.past, ...this.live].filter((each) => each.ts >= from && each.ts <= to + 5e6);
    all.push(...this.level(all.at(-1)?.ts ?? from, from, to));
    const shown = all.filter((each) => each.value !== null);
    this.empty.textContent = shown.length ? "" : this.words;
    if (!shown.length) return;
    const parts = this.parts(all);
    const styles = getComputedStyle(document.documentElement);
    const colour = (name) => styles.getPropertyValue(name).trim();
    pen.font = "12px system-ui, sans-serif";
    const scale = this.scale(pen, shown, from, to, width, height);
    this.drawGaps(pen, scale, colour("--gap"), height);
    this.drawAxes(pen, scale, colour, width, height);
    this.drawBand(pen, scale, colour("--accent-soft"), parts);
    this.drawLine(pen, scale, colour("--accent"), parts);
    if (this.pointer !== null) this.drawReading(pen, scale, colour, shown, width, height);
  }

  // A value that is known to hold (of a tag that is told on change) is so from its sample until now.
  level(after, from, to) {
    const { held } = this;
    if (!held || held.ts > to || this.gaps.some((gap) => gap.to_us > held.ts)) return [];
    const first = point(Math.max(held.ts, after, from), held.value);
    return [first, { ...first, ts: Math.max(to, first.ts), holds: true }];
  }

  scale(pen, points, from, to, width, height) {
    let low = Infinity, high = -Infinity;
    for (const point of points) { low = Math.min(low, point.min); high = Math.max(high, point.max); }
    const size = Math.max(Math.abs(low), Math.abs(high));
    // Closer than ticks can be told apart.
    if (!(high - low > size * 1e-13 + 1e-300)) { const room = size * 0.1 || 1; low -= room; high += room; }
    const ticks = nice(low, high, Math.max(2, Math.floor(height / 45)));
    low = Math.min(low, ticks[0]); high = Math.max(high, ticks.at(-1));
    const left = Math.max(LEAST_LEFT, ...ticks.map((tick) => 16 + pen.measureText(number(tick)).width));
    return {
      from, to, ticks, left,
      x: (ts) => left + ((ts - from) / (to - from)) * (width - left - RIGHT),
      y: (value) => TOP + (1 - (value - low) / (high - low)) * (height - TOP - BOTTOM),
    };
  }

  drawAxes(pen, scale, colour, width, height) {
    pen.strokeStyle = colour("--line"); pen.fillStyle = colour("--muted"); pen.lineWidth = 1;
    pen.textAlign = "right"; pen.textBaseline = "middle";
    for (const tick of scale.ticks) {
      const y = Math.round(scale.y(tick)) + 0.5;
      pen.beginPath(); pen.moveTo(scale.left, y); pen.lineTo(width - RIGHT, y); pen.stroke();
      pen.fillText(number(tick), scale.left - 8, y);
    }
    pen.textBaseline = "alphabetic";
    const count = Math.max(2, Math.floor(width / 150));
    for (let n = 0; n <= count; n += 1) {
      const ts = scale.from + ((scale.to - scale.from) * n) / count;
      pen.textAlign = n === 0 ? "left" : n === count ? "right" : "center";
      pen.fillText(label(ts, this.seconds), scale.x(ts), height - 6);
    }
  }

  drawGaps(pen, scale, colour, height) {
    pen.fillStyle = colour;
    for (const gap of this.gaps) {
      const left = Math.max(scale.x(gap.from_us), scale.left), right = scale.x(Math.min(gap.to_us, scale.to));
      if (right > left) pen.fillRect(left, TOP, Math.max(2, right - left), height - TOP - BOTTOM);
    }
  }

  // The lines: a hole of more than three buckets is one in them too; a step ends at a gap and where its tag turns Bad.
  parts(points) {
    const parts = [], far = Math.max(this.width * 3, this.seconds * 1e4);
    let part = null;
    for (const next of points) {
      const last = part?.at(-1);
      const near = last && (this.steps ? !this.gapWithin(last.ts, next.ts) : next.ts - last.ts <= far);
      const joined = near || (last && next.holds);
      if (joined && this.steps) part.push({ ...last, ts: next.ts });
      if (next.value === null) part = null;
      else if (joined) part.push(next);
      else parts.push(part = [next]);
    }
    return parts;
  }

  gapWithin(from, to) { return this.gaps.some((gap) => gap.from_us < to && gap.to_us > from); }

  drawBand(pen, scale, colour, parts) {
    pen.fillStyle = colour;
    for (const part of parts) {
      pen.beginPath();
      for (const point of part) pen.lineTo(scale.x(point.ts), scale.y(point.max));
      for (const point of part.toReversed()) pen.lineTo(scale.x(point.ts), scale.y(point.min));
      pen.fill();
    }
  }

  drawLine(pen, scale, colour, parts) {
    pen.strokeStyle = colour; pen.fillStyle = colour; pen.lineWidth = 1.8; pen.lineJoin = "round";
    for (const part of parts) {
      pen.beginPath();
      for (const point of part) pen.lineTo(scale.x(point.ts), scale.y(point.value));
      pen.stroke();
      if (part.length === 1) pen.fillRect(scale.x(part[0].ts) - 1.5, scale.y(part[0].value) - 1.5, 3, 3);
    }
  }

  drawReading(pen, scale, colour, points, width, height) {
    let near = points[0];
    for (const point of points) {
      if (Math.abs(scale.x(point.ts) - this.pointer) < Math.abs(scale.x(near.ts) - this.pointer)) near = point;
    }
    const x = scale.x(near.ts), y = scale.y(near.value);
    const range = near.min === near.max ? "" : `  (${number(near.min)} … ${number(near.max)})`;
    const text = `${clock(near.ts)}   ${number(near.value)}${range}`;
    pen.strokeStyle = colour("--muted"); pen.lineWidth = 1;
    pen.beginPath(); pen.moveTo(x, TOP); pen.lineTo(x, height - BOTTOM); pen.stroke();
    pen.fillStyle = colour("--accent"); pen.beginPath(); pen.arc(x, y, 3.5, 0, 7); pen.fill();
    const room = pen.measureText(text).width + 14;
    const left = Math.min(Math.max(x - room / 2, scale.left), width - RIGHT - room);
    pen.fillStyle = colour("--text"); pen.beginPath(); pen.roundRect(left, TOP, room, 22, 5); pen.fill();
    pen.fillStyle = colour("--card"); pen.textAlign = "left"; pen.textBaseline = "middle";
    pen.fillText(text, left + 7, TOP + 11.5);
  }
}

function point(ts, value) { return { ts, value, min: value, max: value }; }

function nice(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough) ?? rough;
  const first = Math.floor(low / step), last = Math.ceil(high / step), ticks = [];
  for (let k = 0; k < count + 2 && first + k <= last; k += 1) ticks.push(Number(((first + k) * step).toPrecision(15)));
  return ticks;
}

function label(us, seconds) {
  const date = new Date(us / 1000);
  if (seconds > 2 * 86400) return date.toLocaleDateString(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const parts = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (seconds <= 900) parts.second = "2-digit";
  return date.toLocaleTimeString(undefined, parts);
}
