"""Measurements of one's own: which networks to measure, on another machine if need be, and refitting with them."""
