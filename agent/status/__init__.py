"""How the exporter is doing, on a screen, as JSON and as metrics."""
