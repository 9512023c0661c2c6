"""Sends readings of a small device to an edge-gateway; for MicroPython 1.22 and later, and CPython.

    log = Logger(config, name="a4cf12050607", folder="/spool")
    log.add({"temp_C": 21.5, "batt_V": 3.7})
    log.send()

A reading gets its time once and keeps it. Tag and time are the key of a sample in the gateway: what is
sent again after an answer was lost is there once. Readings wait in RAM; they go to the flash where sending
fails, where there are `batch` of them, and before the device sleeps (`save`). A file is removed once the
gateway has committed what it holds. Where there are `files` of them, or the flash is full, the oldest goes;
how many readings that cost is told as the tag `NAME/lost`.

Only the gateway needs a clock: its answers carry the time, and say where nothing has set it (status UNCERTAIN
then). What was read before the first answer waits without a date. The local clock is the RTC, which goes on
in deep sleep; nobody may set it.
"""

import binascii
import hashlib
import json
import os
import random
import socket
import time

import spool

EARLIEST_US = 1_704_067_200_000_000  # 2024: a gateway that says less has no clock itself
FULL = 28  # ENOSPC, which MicroPython's errno does not name
UNCERTAIN = 0x40000000  # OPC UA StatusCode: the time of the sample is a guess
FIRST_WAIT_S = 2
LONGEST_WAIT_S = 600
TIMEOUT_S = 15
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class NotSent(Exception):
    """The gateway did not take it; everything is kept."""


class Logger:
    """Readings on their way to a gateway. Not for several threads."""

    def __init__(self, config, name, folder, same_boot=False, clock_us=None):
        """`config`: url, token, device, and as wanted fingerprint, batch, files, device_desc, desc.

        `same_boot`: the local clock went on since the last time (it woke from deep sleep).
        """
        self.config, self.name, self.folder = config, name, folder
        self.batch, self.files = config.get("batch", 50), config.get("files", 40)
        self._clock_us = clock_us or _local_us
        self._waiting = []  # readings in RAM: (dated, ts, {field: value}, status)
        self._last_ts, self._count = 0, random.getrandbits(9)
        self._failures, self._next_try_us = 0, 0
        spool.make(folder)
        self._load(same_boot)

    # -- readings ----------------------------------------------------------------------------

    def add(self, fields):
        """Take a reading of now: names with numbers, texts or booleans."""
        self._put(fields)
        if len(self._waiting) >= self.batch:
            self.save()

    def _put(self, fields):
        local = self._clock_us()
        if self._offset_us is None:
            self._waiting.append((False, self._later(local), fields, 0))
        else:
            self._waiting.append((True, self._later(local + self._offset_us), fields, self._doubt))

    def _later(self, ts):
        """Return a time that no other reading has, for it is half of a sample's key.

        Its microseconds are a running number, so that this holds where the gateway's clock is set back too.
        """
        ts -= ts % 1000
        if self._last_ts - 1_000_000 < ts <= self._last_ts:
            ts = self._last_ts - self._last_ts % 1000 + 1000
        self._count = (self._count + 1) % 1000
        self._last_ts = ts + self._count
        return self._last_ts

    def save(self):
        """Write what waits in RAM into the flash: before a deep sleep, which empties the RAM.

        False: the flash takes nothing, and `problem` says why; the newest `batch` readings stay in RAM.
        """
        saved = True
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.pop(0)
        except OSError as error:
            saved, self.problem = False, "not saved: %s" % error
            over = max(len(self._waiting) - self.batch, 0)
            self._waiting, self._lost = self._waiting[over:], self._lost + over
        self._keep_state()
        return saved

    def _write(self, reading):
        """Add a reading to the newest file, or begin another. OSError: not even an empty flash takes it."""
        text = "".join(self._lines(reading))
        name = self._newest(None if reading[0] else self._boot)
        files = self._listed()
        if name not in files and len(files) >= self.files:
            self._give_up_oldest(name)
        self._with_room(lambda: spool.append(self.folder + "/" + name, text), name)
        self._in_newest += 1

    def _with_room(self, step, name=None):
        """Return what a step that writes returns; while the flash is full the oldest other file goes."""
        while True:
            try:
                return step()
            except OSError as error:
                if error.errno != FULL or not self._give_up_oldest(name):
                    raise

    def _give_up_oldest(self, but):
        """Remove the oldest file but that one. False: there is none."""
        for name in self._listed():
            if name != but:
                _, readings, unreadable = spool.measured(self.folder + "/" + name)
                os.remove(self.folder + "/" + name)
                self._lost += readings + unreadable
                return True
        return False

    def _newest(self, boot):
        """Return the file for the next reading: dated, or of this boot."""
        files = self._listed()
        if files and spool.parts(files[-1])[1] == boot and self._in_newest < self.batch:
            return files[-1]
        self._number += 1
        self._in_newest = 0
        return spool.file_name(self._number, boot)

    def _lines(self, reading):
        _, ts, fields, status = reading
        for field in fields:
            value = fields[field]
            sample = {"tag": "%s/%s" % (self.name, field), "ts": ts, "value": value}
            if isinstance(value, float) and value - value != 0:  # JSON has no word for these
                sample["type"] = "float"
                sample["value"] = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
            if status:
                sample["status"] = status
            yield json.dumps(sample) + "\n"

    # -- sending -----------------------------------------------------------------------------

    def waiting(self):
        """Return how many files and how many readings in RAM are not sent yet."""
        return len(self._listed()), len(self._waiting)

    def due(self):
        """Say whether the pause after the last failure is over."""
        return self._clock_us() >= self._next_try_us

    def send(self):
        """Send everything that waits, where it is time to try. True: the gateway has all of it."""
        if not self.due():
            return False
        try:
            if self._offset_us is None:
                self._learn_time()
            self._date()
            self._tell_of_itself()
            self._send_files()
            if self._waiting:
                body = "".join(line for each in self._waiting for line in self._lines(each)).encode()
                self._deliver(len(body), (body,), len(self._waiting))
                self._waiting = []
        except (OSError, NotSent, ValueError) as error:
            self.problem = "%s: %s" % (type(error).__name__, error)
            self.save()
            self._back_off()
            return False
        self._failures, self.problem = 0, ""
        self._keep_state()
        return True

    def _back_off(self):
        """Wait longer after each failure; not all loggers of a hall at once when the power comes back."""
        wait_s = min(FIRST_WAIT_S << min(self._failures, 16), LONGEST_WAIT_S)
        self._failures += 1
        self._next_try_us = self._clock_us() + int(
            wait_s * (500_000 + random.getrandbits(16) * 500_000 // 65536)
        )

    def _learn_time(self):
        self._request("GET", "/healthz")
        if self._offset_us is None:
            raise NotSent("the gateway has no clock yet")

    def _date(self):
        """Give the readings of before the first answer their time."""
        self._waiting = [
            (True, ts, fields, status) if dated else (True, ts + self._offset_us, fields, self._doubt)
            for dated, ts, fields, status in self._waiting
        ]
        self._last_ts = max([each[1] for each in self._waiting] + [0])
        while self._with_room(self._date_oldest):
            pass

    def _date_oldest(self):
        """Give the oldest file that has no date its times. False: there is none."""
        for name in self._listed():
            number, boot = spool.parts(name)
            if boot is not None:
                unreadable = spool.measured(self.folder + "/" + name)[2]
                spool.replace(
                    self.folder, spool.file_name(number, None), self._dated(name, boot == self._boot)
                )
                try:
                    self._write_state()
                except OSError:
                    pass  # what is removed now makes room for it
                os.remove(self.folder + "/" + name)
                self._lost += unreadable
                return True
        return False

    def _dated(self, name, this_boot):
        """Yield the lines of a file with their times. Nobody knows when an earlier boot was: within the hour
        before now, in order, and marked as a guess.
        """
        hour_ago = self._clock_us() + self._offset_us - 3_600_000_000
        self._guess_us, before = max(self._guess_us, hour_ago), None
        for _, sample in spool.lines_of(self.folder + "/" + name):
            if sample is None:
                continue
            local = sample["ts"]
            if this_boot:
                sample["ts"] += self._offset_us
                if self._doubt:
                    sample["status"] = self._doubt
            else:
                self._guess_us += 0 if local == before else 1000
                sample["ts"], sample["status"] = self._guess_us, UNCERTAIN
            before = local
            yield json.dumps(sample) + "\n"

    def _tell_of_itself(self):
        """Register: the gateway has a tag `NAME/about` from then on, and knows what was lost."""
        if not self._registered:
            about = [self.config.get(key, "") for key in ("device_desc", "desc")]
            self._put({"about": "; ".join(text for text in about if text) or self.name})
            self._registered = True
        if self._lost:
            self._put({"lost": self._lost})
            self._lost = 0

    def _send_files(self):
        for name in self._listed():
            path = self.folder + "/" + name
            length, readings, unreadable = spool.measured(path)
            if length:
                self._deliver(length, spool.pieces(path), readings)
            os.remove(path)
            self._in_newest, self._lost = 0, self._lost + unreadable

    def _deliver(self, length, pieces, readings):
        """Send a body; what the gateway would refuse for ever is given up, for all else would wait for it."""
        status, text = self._request("POST", "/v1/devices/%s/samples" % self.config["device"], length, pieces)
        if status in (400, 413, 422):
            self._lost += readings
            self.refused = "%d %s" % (status, text)
        elif status != 200:
            raise NotSent("%d %s" % (status, text))

    # -- HTTP ----------------------------------------------------------------------------------

    def _request(self, method, path, length=None, pieces=()):
        """Return status and the beginning of the answer; learn the time from its head."""
        tls, host, port, root = _address(self.config["url"])
        stream = _connect(host, port, self.config.get("fingerprint", "") if tls else None)
        try:
            head = "%s %s%s HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n" % (method, root, path, host)
            if length is not None:
                head += "Authorization: Bearer %s\r\n" % self.config["token"]
                head += "Content-Type: application/x-ndjson\r\nContent-Length: %d\r\n" % length
            _write(stream, (head + "\r\n").encode())
            for piece in pieces:
                _write(stream, piece)
            return self._answer(stream)
        finally:
            stream.close()

    def _answer(self, stream):
        line = stream.readline().split(None, 2)
        if len(line) < 2 or not line[0].startswith(b"HTTP/"):
            raise NotSent("the connection was cut before the answer")
        status, left, now_us, doubt = int(line[1]), 0, 0, 0
        while True:
            line = stream.readline()
            if not line.strip():
                break
            name, _, value = line.decode().partition(":")
            if name.lower() == "date":
                now_us = _date_us(value.strip())
            elif name.lower() == "clock" and value.strip() == "unsynchronised":
                doubt = UNCERTAIN
            elif name.lower() == "content-length":
                left = int(value)
        if not line:
            raise NotSent("the connection was cut within the answer")
        self._heard(now_us, doubt)
        text = stream.read(min(left, 300)) if left else b""
        return status, (text or b"").decode()

    def _heard(self, now_us, doubt):
        """Take the gateway's time: of readings from now on, those before keep what they have.

        `doubt`: their status, UNCERTAIN where nothing has set the gateway's clock.
        """
        if now_us < EARLIEST_US:
            return
        offset_us = now_us + 500_000 - self._clock_us()  # the date is of whole seconds, rounded down
        offset_us -= offset_us % 1000
        if self._offset_us is None or abs(offset_us - self._offset_us) > 2_000_000:
            self._offset_us = offset_us
        self._doubt = doubt

    # -- what outlasts a reset -------------------------------------------------------------------

    def _listed(self):
        """Return the files that wait, oldest first."""
        return sorted(name for name in os.listdir(self.folder) if spool.parts(name) is not None)

    def _load(self, same_boot):
        state = spool.read_state(self.folder)
        self._boot = state.get("boot", 0) + (0 if same_boot and state else 1)
        self._offset_us = state.get("offset_us") if same_boot else None
        self._doubt = state.get("doubt", 0)
        self._registered, self._lost = state.get("registered", False), state.get("lost", 0)
        # A power cut between the two steps of dating leaves both: the dated one may have been sent.
        names = self._listed()
        dated = {spool.parts(name)[0] for name in names if spool.parts(name)[1] is None}
        for name in names:
            number, boot = spool.parts(name)
            if boot is not None and number in dated:
                os.remove(self.folder + "/" + name)
        names = self._listed()
        # Numbers go on where they were, also after all files were sent: a name is never used twice.
        self._number = max([spool.parts(name)[0] for name in names] + [state.get("number", 0)])
        self._guess_us = state.get("guess_us", 0)
        self._in_newest = 0
        if names:
            self._in_newest = spool.measured(self.folder + "/" + names[-1])[1]
        self.problem, self.refused = "", ""
        self._keep_state()

    def _keep_state(self):
        """Write the state, if it changed. A flash that takes nothing must not end the logging."""
        try:
            self._with_room(self._write_state)
        except OSError as error:
            self.problem = "not saved: %s" % error

    def _write_state(self):
        state = {
            "boot": self._boot,
            "offset_us": self._offset_us,
            "doubt": self._doubt,
            "registered": self._registered,
            "lost": self._lost,
            "number": self._number,
            "guess_us": self._guess_us,
        }
        if state != spool.read_state(self.folder):
            spool.replace(self.folder, "state", (json.dumps(state),))


def _local_us():
    return time.time_ns() // 1000


def _address(url):
    """Return (tls, host, port, path) of a URL."""
    scheme, _, rest = url.partition("://")
    where, slash, root = rest.rstrip("/").partition("/")
    host, _, port = where.partition(":")
    tls = scheme == "https"
    return tls, host, int(port or (443 if tls else 80)), slash + root


def _connect(host, port, fingerprint):
    """Return a stream; `fingerprint` None: without TLS. The token is sent to that certificate alone."""
    made = socket.socket()
    try:
        made.settimeout(TIMEOUT_S)
        made.connect(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0][-1])
        if fingerprint is not None:
            made = _secured(made, fingerprint)
        if hasattr(made, "readline"):
            return made
        stream = made.makefile("rwb")
        made.close()  # the stream keeps it open
        return stream
    except Exception:
        made.close()
        raise


def _secured(plain, fingerprint):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if hasattr(context, "check_hostname"):
        context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the fingerprint is compared instead
    secured = context.wrap_socket(plain)
    shown = binascii.hexlify(hashlib.sha256(secured.getpeercert(True)).digest()).decode()
    if shown != fingerprint.replace(":", "").lower():
        secured.close()
        raise NotSent("the gateway shows another certificate: " + shown)
    return secured


def _write(stream, data):
    stream.write(data)
    if hasattr(stream, "flush"):
        stream.flush()


def _date_us(text):
    """Return microseconds since 1970 of an HTTP date (RFC 9110, 5.6.7), 0 where it is none."""
    words = text.replace(":", " ").split()
    try:
        day, month, year = int(words[1]), _MONTHS.index(words[2]) + 1, int(words[3])
        hours, minutes, seconds = (int(each) for each in words[4:7])
    except (ValueError, IndexError):
        return 0
    years = year - (month < 3)
    era_day = 365 * years + years // 4 - years // 100 + years // 400
    days = era_day + (153 * ((month - 3) % 12) + 2) // 5 + day - 1 - 719_468
    return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000_000
