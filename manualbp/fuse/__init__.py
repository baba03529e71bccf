"""Neighbouring layers run together: tracing, rewriting, the functions that a rewritten graph calls, and their rules."""
