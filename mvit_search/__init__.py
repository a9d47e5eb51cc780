"""mvit-search: architecture search and scaling explorer for mobile vision transformers.

Importing this package is cheap: nothing here loads torch.
"""

__version__ = "0.1.0"
