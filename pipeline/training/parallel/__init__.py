"""Trains one network in several processes, each of which renders and runs a slice of every batch."""
