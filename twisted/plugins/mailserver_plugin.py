"""`twistd mailserver`: tells twistd where the server is.  Nothing heavy is imported here: every twistd reads this."""

from twisted.application.service import ServiceMaker

mailserver = ServiceMaker("mailserver", "mailserver.tap", "The programmable mail server.", "mailserver")
