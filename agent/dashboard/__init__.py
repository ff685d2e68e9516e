"""The interface to the dashboard: HTTP."""
