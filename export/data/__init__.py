"""Text that comes with the exporter."""
