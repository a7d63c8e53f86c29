"""Leaderboards: collected runs and numbers reported elsewhere, as tables and a static site."""
