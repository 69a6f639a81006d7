"""The methods of distillation: one file each, named as in the configuration."""
