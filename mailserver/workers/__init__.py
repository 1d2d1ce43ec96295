"""Several processes that serve on the same sockets: the parent that looks after them, and the workers themselves."""
