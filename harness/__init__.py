"""The ground of ahabench: load, generate, score, compare. Imports nothing of ours but itself."""
