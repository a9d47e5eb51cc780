"""A measurement server as a target; `latency/server` is the server."""
