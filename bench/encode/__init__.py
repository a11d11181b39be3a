"""Encoders side by side, and where their time goes."""
