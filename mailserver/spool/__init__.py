"""Names the room: messages that wait on the disk until they may be delivered."""
