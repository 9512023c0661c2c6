"""The OPC UA protocol against real servers."""
