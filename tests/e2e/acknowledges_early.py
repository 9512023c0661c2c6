"""A mutant of the gateway that acknowledges before COMMIT: what must find it is test_kill.py."""

import sys

from gateway.__main__ import main
from gateway.model import Receipt, Ticket
from gateway.store import Store
from gateway.store.values import Checked

_accept = Store._accept


def _acknowledge_early(self: Store, rows: Checked) -> Ticket:
    ticket = _accept(self, rows)
    ticket.resolve(Receipt(len(rows), 0, 0))
    return ticket


if __name__ == "__main__":
    Store._accept = _acknowledge_early  # type: ignore[method-assign]  # that is what makes it a mutant
    sys.exit(main())
