"""The store: samples, runs, gaps and what uploads have acknowledged, in a SQLite file that survives."""

from gateway.store.deletes import TooManyDeletions
from gateway.store.deletions import Deletion
from gateway.store.outbox import Transaction
from gateway.store.schema import StoreProblem
from gateway.store.settings import StoreSettings
from gateway.store.store import Store, StoreState

__all__ = [
    "Deletion",
    "Store",
    "StoreProblem",
    "StoreSettings",
    "StoreState",
    "TooManyDeletions",
    "Transaction",
]
