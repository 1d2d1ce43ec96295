"""
Who has a mailbox here: accounts, aliases and domains in SQLite, password hashes, and the cred checkers.

In: addresses and credentials.  Out: what an address stands for, and who somebody is.
"""

from __future__ import annotations
