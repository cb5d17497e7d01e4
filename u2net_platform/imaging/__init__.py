"""Volumes in physical space: reading, writing, orientation, cropping and resampling."""
