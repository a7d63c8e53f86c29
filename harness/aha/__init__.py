"""Moments in which a model interrupts, checks, corrects or reconsiders itself, and what became of them."""
