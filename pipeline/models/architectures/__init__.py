"""Holds architectures that timm lacks: each file registers its own with timm, and is imported with the room."""
