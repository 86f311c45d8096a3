"""Strict YAML → layers → frozen, validated runs. Imports neither torch nor NumPy."""
