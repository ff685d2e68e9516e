"""The edge to the dashboard: HTTP."""
