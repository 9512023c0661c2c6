"""Devices that push."""
