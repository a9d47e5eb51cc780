"""Core ML on Apple hardware: a Mac's own, and a phone's on the cable. Nothing here has met such hardware yet."""
