"""
Mailboxes as directories: Maildir++ with durable deliveries, quotas and a sweep of leftovers.

In: blocks of a message, and the mailboxes it is for.  Out: files that any Maildir reader can open.
`names` knows paths and file names, `lines` the line ends on the disk, `quota` how full a mailbox is.
"""

from __future__ import annotations
