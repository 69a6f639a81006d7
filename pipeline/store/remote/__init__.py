"""Keeps stores on object storage: one process claims an address, puts objects there and publishes them."""
