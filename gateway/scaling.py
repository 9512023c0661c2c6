"""Raw value to physical value; pure."""

from dataclasses import dataclass

from gateway.model import Value


@dataclass(frozen=True, slots=True)
class Scaling:
    """physical = raw * scale + offset, for numbers; element by element for arrays; others pass unchanged."""

    scale: float = 1.0
    offset: float = 0.0

    @property
    def identity(self) -> bool:
        return self.scale == 1.0 and self.offset == 0.0

    def __call__(self, value: Value) -> Value:
        if self.identity or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value * self.scale + self.offset
        if isinstance(value, list):
            return [self(item) for item in value]
        return value
