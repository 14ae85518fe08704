"""Measuring: one metric a file, baselines, protocols."""
