"""How good predictions are, per case and class, with failures counted."""
