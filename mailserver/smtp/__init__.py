"""SMTP: the language (pure), and the server that speaks it over Twisted."""
