"""sensors.yaml, metadata.yaml and dataspace.yaml: what ICOapi's users edit, kept in the state directory."""

from gateway.documents.documents import Applied, Documents

__all__ = ["Applied", "Documents"]
