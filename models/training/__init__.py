"""Learning a bundle from recordings. The only place that imports torch: one method a file."""
