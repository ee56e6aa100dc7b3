"""Loops that every algorithm shares."""
