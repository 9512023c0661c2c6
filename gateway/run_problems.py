"""What the rows of a device's runs say of problems: bounded, and the same text in full only now and then."""

import traceback

_MOST = 100
_CHARACTERS = 8_000
"""Of what one row says; of one sentence `_SENTENCE_CHARACTERS`."""
_SENTENCE_CHARACTERS = 1_000
_SHORT = 300
"""A text up to this is written as it is."""
_TEXTS = 16
_IN_FULL_NS = 600_000_000_000


def trace(error: BaseException) -> str:
    """Return the traceback, or the end of a long one."""
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= _CHARACTERS else "…" + text[1 - _CHARACTERS :]


class Problems:
    """The problems of one run, each once: the first ones, and whether there were more."""

    def __init__(self) -> None:
        self._sentences: dict[str, None] = {}
        self._characters = 0
        self._more = False

    def add(self, sentence: str) -> None:
        sentence = _cut(sentence, _SENTENCE_CHARACTERS)
        if sentence in self._sentences:
            return
        size = self._characters + len(sentence) + 1
        if len(self._sentences) >= _MOST or size > _CHARACTERS:
            self._more = True
            return
        self._sentences[sentence] = None
        self._characters = size

    def __bool__(self) -> bool:
        return bool(self._sentences)

    @property
    def first(self) -> str:
        return next(iter(self._sentences), "")

    @property
    def text(self) -> str:
        """A line for each."""
        return "\n".join([*self._sentences, *["… and more"] * self._more])


class Told:
    """What the last rows of a device said in full: a problem that lasts is not written so each second."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[int, int]] = {}

    def words(self, text: str, gist: str, run_id: int, now_ns: int) -> str:
        """Return what the row of a run is to say: a long text in full, or its gist and which row has it."""
        stale = [old for old, (run, _) in self._texts.items() if run == run_id and old != text]
        for old in stale:  # that row is being written over
            del self._texts[old]
        if len(text) <= _SHORT:
            return text
        in_full, since_ns = self._texts.pop(text, (run_id, now_ns))
        if now_ns - since_ns >= _IN_FULL_NS:
            in_full, since_ns = run_id, now_ns
        self._texts[text] = in_full, since_ns
        while len(self._texts) > _TEXTS:
            del self._texts[next(iter(self._texts))]
        if in_full == run_id:
            return text
        lines = len(text.splitlines())
        return f"{_cut(gist, _SHORT)}\n(unchanged since run {in_full}, whose row has all {lines} lines)"


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
