"""Typed contracts of what may be asked of a live session; the API looks them up by type."""
