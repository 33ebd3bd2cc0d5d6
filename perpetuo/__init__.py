"""Perpetuo: an AI gateway that people can trust with money."""

__version__ = "0.1.0"
