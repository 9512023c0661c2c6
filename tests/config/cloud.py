"""An uploader of the tests' own."""

from dataclasses import dataclass

from gateway.settings import Secret, setting
from gateway.settings import Settings as Group


@dataclass(frozen=True, kw_only=True)
class Settings(Group):
    """A cloud."""

    SHORT = "url"

    url: str = setting(help="Where it is.")
    token: Secret | None = setting(None, help="A secret.")
