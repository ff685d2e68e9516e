"""The exporter's state, for a screen, as JSON and as metrics."""
