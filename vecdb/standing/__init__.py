"""Searches that are kept: saved, standing, logged, and run again."""
