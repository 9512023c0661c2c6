// Runs a program in MicroPython (its WebAssembly port) with TCP and nothing else of the outside.
//
//   node micropython.mjs MICROPYTHON.mjs HEAP_BYTES FILE... < PROGRAM
//
// The interpreter runs in a worker and its `socket` waits in Atomics.wait while the main thread does the work,
// for MicroPython's sockets block. Each FILE is put into the root folder of its file system.
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { Worker, isMainThread, workerData } from "node:worker_threads";

const SOCKET = `
import binascii, js_net
SOCK_STREAM = 1
def getaddrinfo(host, port, family=0, kind=0):
    return [(2, kind, 0, "", (host, port))]
class socket:
    def __init__(self):
        self._id, self._waiting = -1, b""
    def settimeout(self, seconds):
        js_net.timeout(seconds)
    def connect(self, address):
        self._id = int(self._done(js_net.connect(address[0], address[1])))
    def _done(self, answer):
        if answer.startswith("!"):
            raise OSError(answer[1:])
        return answer
    def write(self, data):
        self._done(js_net.write(self._id, binascii.hexlify(data).decode()))
        return len(data)
    def _more(self):
        data = binascii.unhexlify(self._done(js_net.read(self._id)))
        self._waiting += data
        return len(data)
    def readline(self):
        while b"\\n" not in self._waiting and self._more():
            pass
        end = self._waiting.find(b"\\n") + 1 or len(self._waiting)
        return self._take(end)
    def read(self, size):
        while len(self._waiting) < size and self._more():
            pass
        return self._take(size)
    def _take(self, size):
        data, self._waiting = self._waiting[:size], self._waiting[size:]
        return data
    def close(self):
        if self._id >= 0:
            js_net.close(self._id)
`;

if (isMainThread) {
  const shared = new SharedArrayBuffer(1 << 20);
  const signal = new Int32Array(shared, 0, 2);
  const data = new Uint8Array(shared, 8);
  const [micropython, heapBytes, ...files] = process.argv.slice(2);
  const program = fs.readFileSync(0, "utf-8");
  const worker = new Worker(new URL(import.meta.url), {
    workerData: { shared, micropython, heapBytes: Number(heapBytes), files, program },
  });
  const sockets = [];
  let timeoutMs = 15_000;

  const answer = (text) => {
    signal[1] = new TextEncoder().encodeInto(text, data).written;
    Atomics.store(signal, 0, 1);
    Atomics.notify(signal, 0);
  };
  const once = (socket, events) =>
    new Promise((resolve) => {
      const timer = setTimeout(() => resolve("!timeout"), timeoutMs);
      for (const event of events) {
        socket.once(event, (error) => {
          clearTimeout(timer);
          resolve(error instanceof Error ? `!${error.message}` : "");
        });
      }
    });
  const operations = {
    timeout: async (seconds) => ((timeoutMs = seconds * 1000), ""),
    connect: async (host, port) => {
      const socket = net.connect(port, host);
      socket.setMaxListeners(0); // one for each write
      const connected = await once(socket, ["connect", "error"]);
      if (connected) return connected;
      const state = { socket, chunks: [], ended: "" };
      socket.on("data", (chunk) => state.chunks.push(chunk));
      socket.on("end", () => (state.ended ||= "end"));
      socket.on("error", (error) => (state.ended = `!${error.message}`));
      socket.on("close", () => (state.ended ||= "end"));
      return String(sockets.push(state) - 1);
    },
    write: async (id, hex) => {
      const { socket, ended } = sockets[id];
      if (ended) return ended === "end" ? "!EPIPE" : ended;
      const drained = new Promise((resolve) => socket.write(Buffer.from(hex, "hex"), resolve));
      const error = await Promise.race([drained, once(socket, ["close"])]);
      return error instanceof Error ? `!${error.message}` : "";
    },
    read: async (id) => {
      const state = sockets[id];
      while (!state.chunks.length && !state.ended) {
        if ((await once(state.socket, ["data", "end", "close", "error"])) === "!timeout") return "!timeout";
      }
      if (state.chunks.length) return state.chunks.shift().toString("hex");
      return state.ended === "end" ? "" : state.ended;
    },
    close: async (id) => (sockets[id].socket.destroy(), ""),
  };
  worker.on("message", async ([name, ...parameters]) => answer(await operations[name](...parameters)));
  worker.on("error", (error) => {
    console.error(String(error));
    process.exit(1);
  });
  worker.on("exit", (code) => process.exit(code));
} else {
  const { parentPort } = await import("node:worker_threads");
  const { shared, micropython, heapBytes, files, program } = workerData;
  const signal = new Int32Array(shared, 0, 2);
  const data = new Uint8Array(shared, 8);
  const ask = (...message) => {
    Atomics.store(signal, 0, 0);
    parentPort.postMessage(message);
    Atomics.wait(signal, 0, 0);
    return new TextDecoder().decode(data.slice(0, signal[1]));
  };
  const { loadMicroPython } = await import(micropython);
  const interpreter = await loadMicroPython({
    heapsize: heapBytes,
    stdout: (line) => fs.writeSync(1, `${line}\n`),
    stderr: (line) => fs.writeSync(2, `${line}\n`),
  });
  interpreter.registerJsModule("js_net", {
    timeout: (seconds) => ask("timeout", seconds),
    connect: (host, port) => ask("connect", host, port),
    write: (id, hex) => ask("write", id, hex),
    read: (id) => ask("read", id),
    close: (id) => ask("close", id),
  });
  interpreter.FS.writeFile("/socket.py", SOCKET);
  for (const file of files) interpreter.FS.writeFile(`/${path.basename(file)}`, fs.readFileSync(file));
  try {
    interpreter.runPython(program);
  } catch (error) {
    fs.writeSync(2, `${error.message}\n`);
    process.exit(1);
  }
  process.exit(0);
}
