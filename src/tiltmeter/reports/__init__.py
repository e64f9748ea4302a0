"""Figures, tables and the report page, made from stored results alone."""
