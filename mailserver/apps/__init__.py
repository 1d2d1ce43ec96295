"""
Apps: the user's own code at every stage of a message's way, in front of accounts and mailboxes, or in their place.

In: a connection's questions, messages.  Out: refusals, changes, deliveries of the app's own.
`app` is what users write against; `matching` says whose turn it is; `calling` runs their code; `chain` and `avatar`
stand between the SMTP server and the rooms behind it; `destination` brings a message to those that take it;
`loading` finds them; `command`, `webhook` and `ready` are apps that need no code.
"""
