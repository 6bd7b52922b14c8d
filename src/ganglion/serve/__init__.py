"""Exported policies over HTTP: fast, and safe against whatever comes in. No task, no torch."""
