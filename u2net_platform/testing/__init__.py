"""Checks for authors of plugins, shipped with the platform."""
