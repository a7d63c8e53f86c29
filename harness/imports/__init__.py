"""Logs of other tools: their rows, read and mapped to our items."""
