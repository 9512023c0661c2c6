"""A gateway that keeps its gaps to itself, which the script of breaks must notice."""

import sys

from gateway.__main__ import main
from gateway.intake import DeviceSession

DeviceSession.gap = lambda *_words: None  # type: ignore[method-assign,assignment]

if __name__ == "__main__":
    sys.exit(main())
