"""The road of one message: from the envelope that was accepted to all the places where it must lie."""
