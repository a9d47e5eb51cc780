"""One page a module; see `app.py` for what a page holds."""
