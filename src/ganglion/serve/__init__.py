"""Exported policies over HTTP: fast, and safe against whatever comes in. Knows no task, no torch."""
