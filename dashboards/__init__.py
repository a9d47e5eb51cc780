"""The dashboard: a local web page on the runs of a results folder.

Imported as a top-level package from a checkout and as a package of any other name from a wheel, so the
modules here import each other by relative imports alone. They load no torch.
"""
