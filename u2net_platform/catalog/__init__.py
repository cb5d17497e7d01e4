"""What was trained, from what, and where its weights lie. The one package that knows SQL."""
