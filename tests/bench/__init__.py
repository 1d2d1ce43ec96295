"""Tests of bench/: what is computed and written.  Nothing is started, no network."""
