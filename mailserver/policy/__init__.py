"""Policies: who may do what, one in each file."""
